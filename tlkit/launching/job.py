"""A job: its workers run until all have finished, and again when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .processes import Workers

_EARLY = 60.0  # seconds; what goes wrong so soon in every worker is the script's fault
_LEAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASS_ON = (signal.SIGUSR1, signal.SIGUSR2)
_LAST_WORDS = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Job:
    """What is run, and how often again.

    Args:
        command: What each worker runs.
        environments: Gives the environment of each worker that this launcher starts,
            by its number, for each attempt anew.
        alone: Whether these are all workers of the job.
        restarts: How often the job may be started again.
        grace: Seconds for the workers to leave after an interrupt.
    """

    command: Sequence[str]
    environments: Callable[[], Mapping[int, dict[str, str]]]
    alone: bool
    restarts: int
    grace: float


@dataclass(frozen=True)
class _End:
    """How an attempt ended."""

    codes: dict[int, int | None]  # as they were, before the launcher killed any
    seconds: float

    def finished(self) -> bool:
        return all(code == 0 for code in self.codes.values())

    def first(self) -> tuple[int, int]:
        """The number of a worker that died, and its exit status; signals first."""
        failed = [(k, code) for k, code in self.codes.items() if code]
        return min(failed, key=lambda pair: (pair[1] > 0, pair[0]))

    def by_exception(self) -> bool:
        """Whether each worker ended by itself, with an error."""
        return all(code is not None and code > 0 for code in self.codes.values())


class _Interrupts:
    """The signals that the launcher gets; as a context manager, it takes them."""

    def __init__(self):
        self.leave: list[int] = []
        self.workers: Workers | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Interrupts:
        for number in (*_LEAVE, *_PASS_ON):
            # What nohup or a shell's `&` ignores stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                take = self._pass_on if number in _PASS_ON else self._note
                self._before[number] = signal.signal(number, take)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.leave.append(number)

    def _pass_on(self, number: int, _) -> None:
        if self.workers is not None:
            self.workers.send(number)


def run(job: Job) -> int:
    """Runs a job to its end.

    Args:
        job: The job.

    Returns:
        The exit status: 0 when every worker has finished; else that of the worker that
        died, or 128 and the number of the signal.
    """
    with _Interrupts() as interrupts:
        before = None
        for restart in range(job.restarts + 1):
            end = _attempt(job, restart, interrupts)
            if interrupts.leave:
                return 128 + interrupts.leave[0]
            if end.finished():
                return 0
            reason = _hopeless(job, restart, end, before)
            if reason:
                say(f"{_died(end)}. {reason}")
                return _status(end.first()[1])
            pause = min(2.0**restart, 30.0)
            say(
                f"{_died(end)}; the job starts again in {pause:.0f} s "
                f"(restart {restart + 1} of {job.restarts})."
            )
            if _interrupted_in(pause, interrupts):
                return 128 + interrupts.leave[0]
            before = end
    raise AssertionError("the last restart returns")


def _attempt(job: Job, restart: int, interrupts: _Interrupts) -> _End | None:
    """Runs the workers once; `None` when a signal ended it."""
    environments = {
        index: environment | {"TLKIT_RESTART": str(restart), "PYTHONUNBUFFERED": "1"}
        for index, environment in job.environments().items()
    }
    workers = interrupts.workers = Workers(job.command, environments)
    try:
        while not interrupts.leave and not workers.unheard:
            codes = workers.codes()
            if any(codes.values()):
                return _settled(workers, interrupts)
            if workers.ended():
                return _End(codes, workers.seconds())
            workers.wait(0.1, lambda: False)
        if not interrupts.leave:  # as if a closed pipe had ended it
            interrupts.leave.append(signal.SIGPIPE)
        _leave(workers, job.grace, interrupts)
        return None
    finally:
        interrupts.workers = None
        workers.close()


def _settled(workers: Workers, interrupts: _Interrupts) -> _End:
    """How an attempt ended in which a worker died.

    The others hang in the next collective, or run into the same error by themselves:
    the script's own errors are known by that, and each gets to print its own.
    """
    seconds = workers.seconds()
    if _End(workers.codes(), seconds).first()[1] > 0:
        done = lambda: workers.ended() or bool(interrupts.leave)
        workers.wait(10.0 if seconds < _EARLY else 2.0, done)
    return _End(workers.codes(), seconds)


def _leave(workers: Workers, grace: float, interrupts: _Interrupts) -> None:
    """Passes a signal on once, and waits for the workers to leave.

    A second signal, or the end of the grace time, asks by SIGTERM and then kills.
    """
    first = interrupts.leave[0]
    asked = signal.SIGINT if first == signal.SIGINT else signal.SIGTERM
    say(f"{_name(first)}: the workers have {grace:g} s to leave.")
    workers.send(asked)
    heard = len(interrupts.leave)
    gone = lambda: workers.ended() or len(interrupts.leave) > heard
    workers.wait(grace, gone)
    if workers.ended():
        return
    if asked == signal.SIGINT:
        heard = len(interrupts.leave)
        workers.send(signal.SIGTERM)
        workers.wait(min(_LAST_WORDS, grace), gone)
    if not workers.ended():
        left = [str(k) for k, code in workers.codes().items() if code is None]
        say(f"Killed, since they did not leave: worker {', '.join(left)}.")


def _hopeless(job: Job, restart: int, end: _End, before: _End | None) -> str | None:
    """Why another attempt makes no sense; `None` if it does."""
    if job.alone and end.by_exception():
        # Where all fail alike, something in the script is wrong, not with a worker.
        if end.seconds < _EARLY:
            return "Every worker did, so soon that the job is not started again."
        if before and before.by_exception() and end.seconds < before.seconds + 10:
            return "Every worker did, as before, and the job is not started again."
    if restart == job.restarts:
        return f"No restart is left (--restarts {job.restarts})."
    return None


def _interrupted_in(seconds: float, interrupts: _Interrupts) -> bool:
    end = time.monotonic() + seconds
    while not interrupts.leave and time.monotonic() < end:
        time.sleep(0.05)
    return bool(interrupts.leave)


def _died(end: _End) -> str:
    index, code = end.first()
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


def say(text: str) -> None:
    """Prints a line of the launcher's own."""
    with contextlib.suppress(OSError):
        os.write(2, f"[launch] {text}\n".encode())
