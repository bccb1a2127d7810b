"""Writes to the launcher's stdout and stderr, which may be slow, full or closed.

Tested in tests/launching/test_output.py.
"""

import errno
import os
import select
import time

STDOUT, STDERR = 1, 2
_BROKEN = (errno.EPIPE, errno.ECONNRESET)
_LAST_LINE_SECONDS = 1.0  # that `say` waits for a slow reader
# If the reader of the output takes no byte for that long, the rest is not written.
_STUCK_SECONDS = 10.0


class Output:
    """Writes lines to stdout and stderr; does not wait if these are non-blocking.

    A reader that is gone ends the job, as SIGPIPE ends a command in a pipe. After other
    errors, such as a full disk under a log, lines are lost and the job goes on.

    Attributes:
        closed: Whether nobody reads the output any more.
    """

    def __init__(self):
        self.closed = False
        # The bytes that a slow reader has not taken yet.
        self._pending: dict[int, bytes] = {STDOUT: b"", STDERR: b""}
        self._failed: set[int] = set()

    def write(self, sink: int, data: bytes) -> None:
        """Writes as much as the reader takes now; `flush` writes the rest.

        Args:
            sink: `STDOUT` or `STDERR`.
            data: Complete lines, in any encoding.
        """
        self._pending[sink] += data
        self._write_pending(sink)

    def is_pending(self) -> bool:
        """Returns whether a slow reader has not taken everything yet."""
        return any(self._pending.values())

    def flush(self, seconds: float) -> None:
        """Waits at most `seconds` for a slow reader; writes as much as it accepts."""
        sinks = [sink for sink, data in self._pending.items() if data]
        _, ready, _ = select.select([], sinks, [], seconds)
        for sink in ready:
            self._write_pending(sink)

    def finish(self) -> None:
        """Writes everything pending; drops it if the reader has stopped reading."""
        last, size = time.monotonic(), self._size()
        while size and time.monotonic() - last < _STUCK_SECONDS:
            self.flush(0.1)
            if self._size() < size:
                last, size = time.monotonic(), self._size()
        self._pending = {STDOUT: b"", STDERR: b""}

    def _size(self) -> int:
        return sum(map(len, self._pending.values()))

    def _write_pending(self, sink: int) -> None:
        try:
            while self._pending[sink]:
                written = os.write(sink, self._pending[sink])
                self._pending[sink] = self._pending[sink][written:]
        except BlockingIOError:  # another program made the pipe non-blocking
            return
        except OSError as error:
            self._pending[sink] = b""
            if error.errno in _BROKEN:
                self.closed = True
                self._pending = {STDOUT: b"", STDERR: b""}
            elif sink not in self._failed:
                self._failed.add(sink)
                name = "stdout" if sink == STDOUT else "stderr"
                say(f"Lines are lost, since {name} takes none: {error.strerror}.")


def say(text: str) -> None:
    """Prints a line of the launcher itself."""
    data = f"[launch] {text}\n".encode()
    end = time.monotonic() + _LAST_LINE_SECONDS
    while data and time.monotonic() < end:
        try:
            data = data[os.write(STDERR, data) :]
        except BlockingIOError:
            select.select([], [STDERR], [], 0.1)
        except OSError:
            return
