"""Starts the workers' processes, prints their output by worker, and ends them all.

Tested in tests/test_launch.py.
"""

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

from .output import STDERR, STDOUT, Output

_MAX_LINE = 1 << 20  # bytes; longer lines are printed in parts
_SET_PDEATHSIG = 1  # of <linux/prctl.h>


@dataclass
class Worker:
    """A running worker."""

    index: int
    process: subprocess.Popen
    # The unfinished last line of each pipe.
    partial_lines: dict[IO[bytes], bytes] = field(default_factory=dict)

    def code(self) -> int | None:
        """Returns the exit status, negative for a signal; `None` while it runs."""
        return self.process.poll()

    def send(self, number: int) -> None:
        """Sends a signal if the worker still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kills the worker and the processes that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Workers:
    """The workers of one attempt; prints their output.

    Args:
        command: The command that each worker runs.
        environments: The environment of each worker, by its index.
    """

    def __init__(
        self, command: Sequence[str], environments: Mapping[int, Mapping[str, str]]
    ):
        self._selector = selectors.DefaultSelector()
        self.running: list[Worker] = []
        self.output = Output()
        self.started = time.monotonic()
        try:
            for index, environment in environments.items():
                self.running.append(_start(command, index, environment))
                self._listen(self.running[-1])
        except BaseException:
            self.close()
            raise

    def codes(self) -> dict[int, int | None]:
        """Returns the exit status of each worker by index; `None` while it runs."""
        return {worker.index: worker.code() for worker in self.running}

    def send(self, number: int) -> None:
        """Sends a signal to each worker that still runs."""
        for worker in self.running:
            worker.send(number)

    def seconds(self) -> float:
        """Returns the seconds since the workers were started."""
        return time.monotonic() - self.started

    def wait(self, seconds: float, until: Callable[[], bool]) -> None:
        """Prints output until the condition `until` holds, at most for `seconds`."""
        end = time.monotonic() + seconds
        while not until() and (left := end - time.monotonic()) > 0:
            self._print_available(min(left, 0.1))

    def ended(self) -> bool:
        """Returns whether no worker runs any more."""
        return all(code is not None for code in self.codes().values())

    def close(self) -> None:
        """Kills the workers that still run, and prints the rest of the output."""
        for worker in self.running:
            if worker.code() != 0:
                worker.kill()
        for worker in self.running:
            worker.process.wait()
        # Wait a second at most: a worker's child process may never close the pipe.
        end = time.monotonic() + 1
        while self._selector.get_map() and time.monotonic() < end:
            if self.output.is_pending():
                self.output.finish()
                end = time.monotonic() + 1
            if not self._print_available(0.05):
                break
        for key in list(self._selector.get_map().values()):
            self._forget(key)
        self._selector.close()
        self.output.finish()

    def _listen(self, worker: Worker) -> None:
        pairs = (worker.process.stdout, STDOUT), (worker.process.stderr, STDERR)
        for pipe, sink in pairs:
            os.set_blocking(pipe.fileno(), False)
            worker.partial_lines[pipe] = b""
            self._selector.register(pipe, selectors.EVENT_READ, (worker, sink))

    def _print_available(self, seconds: float) -> bool:
        """Prints available output; waits at most `seconds` for it.

        While a slow reader has not taken the last lines, nothing more is read from the
        workers. They wait, as they would if they wrote to that reader themselves.
        """
        if self.output.is_pending():
            self.output.flush(seconds)
            return True
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
            buffer = worker.partial_lines[key.fileobj] + data
            lines = buffer.split(b"\n")
            rest = lines.pop()
            if len(rest) > _MAX_LINE:
                lines, rest = [*lines, rest], b""
            worker.partial_lines[key.fileobj] = rest
            self._print(sink, worker.index, lines)
        return bool(ready)

    def _forget(self, key: selectors.SelectorKey) -> None:
        worker, sink = key.data
        self._selector.unregister(key.fileobj)
        rest = worker.partial_lines.pop(key.fileobj)
        key.fileobj.close()
        self._print(sink, worker.index, [rest] if rest else [])

    def _print(self, sink: int, index: int, lines: list[bytes]) -> None:
        """Prints lines unchanged, in any encoding."""
        data = b"".join(b"[%d] %s\n" % (index, line) for line in lines)
        if data and not self.output.closed:
            self.output.write(sink, data)


def _start(
    command: Sequence[str], index: int, environment: Mapping[str, str]
) -> Worker:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A separate process group: Ctrl-C reaches a worker only from the launcher.
        start_new_session=True,
        preexec_fn=_die_with_launcher(),
    )
    return Worker(index, process)


def _die_with_launcher() -> Callable[[], None] | None:
    """Returns a function that makes a new process die with the launcher.

    This works on Linux only; elsewhere a launcher killed by SIGKILL leaves its workers.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    launcher = os.getpid()

    def prepare() -> None:
        prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != launcher:  # the launcher died before `prctl`
            os._exit(1)

    return prepare
