"""Ctrl-C and a friendly kill: the step is ended first, and the checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from .display import say


class Interrupts:
    """Takes signals while it is entered, and remembers the first.

    A signal in the middle of a step would leave weights, optimizer and position apart
    from each other. A second Ctrl-C is not waited for.

    Args:
        active: Whether to take them at all. Only the main thread of Python can.
    """

    def __init__(self, active: bool = True):
        main = threading.current_thread() is threading.main_thread()
        self.active = active and main
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if self.active:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)
        if self.received is not None and error[0] is None:
            # It came too late to be heeded inside.
            signal.raise_signal(self.received)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
            return
        self.received = number
        say("Interrupted: ending the step, then writing a checkpoint. Again to leave.")

    def leave(self) -> None:
        """Goes on as the signal would have.

        Raises:
            KeyboardInterrupt: It was Ctrl-C.
            SystemExit: It was SIGTERM; the exit status is 143, as shells have it.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)
