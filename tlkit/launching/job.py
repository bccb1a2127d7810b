"""A job: runs its workers until all have finished; restarts them if one dies.

Tested in tests/test_launch.py.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .output import say
from .processes import Workers

_EARLY = 60.0  # seconds; if every worker fails sooner, the script is wrong
_EXIT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASS_ON = (signal.SIGUSR1, signal.SIGUSR2)
_TERM_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Job:
    """The command of the workers, and when to restart them.

    Args:
        command: The command that each worker runs.
        environments: Returns, for each attempt, the environments of the workers that
            this launcher starts, by their index.
        alone: Whether this launcher starts all workers of the job.
        restarts: The maximum number of restarts.
        grace: Seconds for the workers to exit after an interrupt.
    """

    command: Sequence[str]
    environments: Callable[[], Mapping[int, dict[str, str]]]
    alone: bool
    restarts: int
    grace: float


@dataclass(frozen=True)
class _Outcome:
    """The end of an attempt."""

    codes: dict[int, int | None]  # statuses before the launcher killed any worker
    seconds: float

    def finished(self) -> bool:
        return all(code == 0 for code in self.codes.values())

    def first_failure(self) -> tuple[int, int]:
        """Returns index and status of a dead worker, if possible killed by a signal."""
        failed = [(k, code) for k, code in self.codes.items() if code]
        return min(failed, key=lambda pair: (pair[1] > 0, pair[0]))

    def all_failed(self) -> bool:
        """Returns whether each worker exited by itself, with an error."""
        return all(code is not None and code > 0 for code in self.codes.values())


class _Interrupts:
    """A context manager that handles the signals that the launcher receives."""

    def __init__(self):
        self.exits: list[int] = []
        self.workers: Workers | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Interrupts:
        for number in (*_EXIT, *_PASS_ON):
            # Signals that nohup or a shell's `&` ignores stay ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                take = self._pass_on if number in _PASS_ON else self._note
                self._before[number] = signal.signal(number, take)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.exits.append(number)

    def _pass_on(self, number: int, _) -> None:
        if self.workers is not None:
            self.workers.send(number)


def run(job: Job) -> int:
    """Runs a job to its end.

    Returns:
        The exit status: 0 if every worker has finished; else that of the worker that
        died, or 128 plus the number of the signal.
    """
    with _Interrupts() as interrupts:
        before = None
        for restart in range(job.restarts + 1):
            end = _attempt(job, restart, interrupts)
            if interrupts.exits:
                return 128 + interrupts.exits[0]
            if end.finished():
                return 0
            reason = _reason_to_give_up(job, restart, end, before)
            if reason:
                say(f"{_died(end)}. {reason}")
                return _status(end.first_failure()[1])
            pause = min(2.0**restart, 30.0)
            say(
                f"{_died(end)}; the job restarts in {pause:.0f} s "
                f"(restart {restart + 1} of {job.restarts})."
            )
            if _is_interrupted_within(pause, interrupts):
                return 128 + interrupts.exits[0]
            before = end
    raise AssertionError("the last restart returns")


def _attempt(job: Job, restart: int, interrupts: _Interrupts) -> _Outcome | None:
    """Runs the workers once; returns `None` if a signal ended the attempt."""
    environments = {
        index: environment | {"TLKIT_RESTART": str(restart), "PYTHONUNBUFFERED": "1"}
        for index, environment in job.environments().items()
    }
    workers = interrupts.workers = Workers(job.command, environments)
    try:
        while not interrupts.exits and not workers.output.closed:
            codes = workers.codes()
            if any(codes.values()):
                return _after_failure(workers, interrupts)
            if workers.ended():
                return _Outcome(codes, workers.seconds())
            workers.wait(0.1, lambda: False)
        if not interrupts.exits:  # exit as if SIGPIPE had killed it
            interrupts.exits.append(signal.SIGPIPE)
        _shut_down(workers, job.grace, interrupts)
        return None
    finally:
        interrupts.workers = None
        workers.close()


def _after_failure(workers: Workers, interrupts: _Interrupts) -> _Outcome:
    """Waits a few seconds after a worker died, and returns the outcome.

    The other workers hang in the next collective. But if the script is wrong, each
    worker fails by itself, and has time to print its error.
    """
    seconds = workers.seconds()
    if _Outcome(workers.codes(), seconds).first_failure()[1] > 0:
        done = lambda: workers.ended() or bool(interrupts.exits)
        workers.wait(10.0 if seconds < _EARLY else 2.0, done)
    return _Outcome(workers.codes(), seconds)


def _shut_down(workers: Workers, grace: float, interrupts: _Interrupts) -> None:
    """Passes a signal to the workers once, and waits for them to exit.

    After a second signal or the grace time, SIGTERM is sent, and then they are killed.
    """
    first = interrupts.exits[0]
    passed = signal.SIGINT if first == signal.SIGINT else signal.SIGTERM
    say(f"{_name(first)}: the workers have {grace:g} s to exit.")
    workers.send(passed)
    count = len(interrupts.exits)
    done = lambda: workers.ended() or len(interrupts.exits) > count
    workers.wait(grace, done)
    if workers.ended():
        return
    if passed == signal.SIGINT:
        count = len(interrupts.exits)
        workers.send(signal.SIGTERM)
        workers.wait(min(_TERM_GRACE, grace), done)
    if not workers.ended():
        running = [str(k) for k, code in workers.codes().items() if code is None]
        say(f"Killed, since they did not exit: worker {', '.join(running)}.")


def _reason_to_give_up(
    job: Job, restart: int, end: _Outcome, before: _Outcome | None
) -> str | None:
    """Returns why the job is not restarted; `None` if it is."""
    if job.alone and end.all_failed():
        # If all workers fail, the cause is in the script and not in one of them.
        if end.seconds < _EARLY:
            return "Every worker did, so soon that the job is not restarted."
        if before and before.all_failed() and end.seconds < before.seconds + 10:
            return "Every worker did, as before, and the job is not restarted."
    if restart == job.restarts:
        return f"No restart is left (--restarts {job.restarts})."
    return None


def _is_interrupted_within(seconds: float, interrupts: _Interrupts) -> bool:
    end = time.monotonic() + seconds
    while not interrupts.exits and time.monotonic() < end:
        time.sleep(0.05)
    return bool(interrupts.exits)


def _died(end: _Outcome) -> str:
    index, code = end.first_failure()
    if code > 0:
        return f"Worker {index} ended with exit status {code}"
    return f"Worker {index} was killed by {_name(-code)}"


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _status(code: int) -> int:
    return code if code > 0 else 128 - code
