"""Processes: one for each worker, its output marked, none left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

_STDOUT, _STDERR = 1, 2
_LONGEST_LINE = 1 << 20  # bytes; more without a line's end is passed on as it is
_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass
class Worker:
    """A running worker."""

    index: int
    process: subprocess.Popen
    # What came after the last line's end, by the file that it came from.
    halves: dict[IO[bytes], bytes] = field(default_factory=dict)

    def code(self) -> int | None:
        """The exit status, less than 0 for a signal; `None` while it runs."""
        return self.process.poll()

    def send(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kills it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Workers:
    """The workers of one attempt, and what they print.

    Args:
        command: What each worker runs.
        environments: The environment of each.
    """

    def __init__(
        self, command: Sequence[str], environments: Mapping[int, Mapping[str, str]]
    ):
        self._selector = selectors.DefaultSelector()
        self.running: list[Worker] = []
        self.unheard = False  # whether nobody reads what they print any more
        self.started = time.monotonic()
        try:
            for index, environment in environments.items():
                self.running.append(_start(command, index, environment))
                self._listen(self.running[-1])
        except BaseException:
            self.close()
            raise

    def codes(self) -> dict[int, int | None]:
        """The exit status of each worker; `None` while it runs."""
        return {worker.index: worker.code() for worker in self.running}

    def send(self, number: int) -> None:
        """Sends a signal to each worker that runs."""
        for worker in self.running:
            worker.send(number)

    def seconds(self) -> float:
        """How long ago they were started."""
        return time.monotonic() - self.started

    def wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Passes on what they print until something is so, or for some time.

        Args:
            seconds: At most so long.
            until: Says that it is so.

        Returns:
            Whether it came to be so.
        """
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._pass_on(min(left, 0.1))
        return True

    def ended(self) -> bool:
        """Whether none runs any more."""
        return all(code is not None for code in self.codes().values())

    def close(self) -> None:
        """Kills those that run, and passes on what was still to be read."""
        for worker in self.running:
            if worker.code() != 0:
                worker.kill()
        for worker in self.running:
            worker.process.wait()
        # What a worker started may hold its pipe open for ever.
        end = time.monotonic() + 1
        while self._selector.get_map() and time.monotonic() < end:
            if not self._pass_on(0.05):
                break
        for key in list(self._selector.get_map().values()):
            self._forget(key)
        self._selector.close()

    def _listen(self, worker: Worker) -> None:
        pairs = (worker.process.stdout, _STDOUT), (worker.process.stderr, _STDERR)
        for pipe, sink in pairs:
            os.set_blocking(pipe.fileno(), False)
            worker.halves[pipe] = b""
            self._selector.register(pipe, selectors.EVENT_READ, (worker, sink))

    def _pass_on(self, seconds: float) -> bool:
        """Passes on what there is, waiting so long for the first of it."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return False
        ready = self._selector.select(seconds)
        for key, _ in ready:
            worker, sink = key.data
            try:
                data = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if not data:
                self._forget(key)
                continue
            whole = worker.halves[key.fileobj] + data
            lines = whole.split(b"\n")
            rest = lines.pop()
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            worker.halves[key.fileobj] = rest
            self._print(sink, worker.index, lines)
        return bool(ready)

    def _forget(self, key: selectors.SelectorKey) -> None:
        worker, sink = key.data
        self._selector.unregister(key.fileobj)
        rest = worker.halves.pop(key.fileobj)
        key.fileobj.close()
        self._print(sink, worker.index, [rest] if rest else [])

    def _print(self, sink: int, index: int, lines: list[bytes]) -> None:
        """Prints lines as they are, whatever their encoding."""
        data = b"".join(b"[%d] %s\n" % (index, line) for line in lines)
        try:
            while data and not self.unheard:
                data = data[os.write(sink, data) :]
        except OSError:
            self.unheard = True


def _start(
    command: Sequence[str], index: int, environment: Mapping[str, str]
) -> Worker:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own: Ctrl-C reaches a worker once, from the launcher.
        start_new_session=True,
        preexec_fn=_die_with_launcher(),
    )
    return Worker(index, process)


def _die_with_launcher() -> Callable[[], None] | None:
    """What a new process does so that it does not outlive a killed launcher.

    Only Linux can; elsewhere a launcher killed by SIGKILL leaves its workers.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    launcher = os.getpid()

    def prepare() -> None:
        prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != launcher:  # it died in between
            os._exit(1)

    return prepare
