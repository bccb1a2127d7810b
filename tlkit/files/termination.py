"""Lets `finally` clauses run after SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raises `SystemExit` on SIGTERM in a context, as Ctrl-C raises an exception.

    By default, SIGTERM ends the process at once: temporary folders remain, and child
    processes go on. A handler of the user's own is left alone, and signals have no
    effect here outside Python's main thread. A second SIGTERM ends the process at once.

    Raises:
        SystemExit: The process received SIGTERM. The exit status is 143, as in shells.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    del frame
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)
