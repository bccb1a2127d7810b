"""Delays Ctrl-C and SIGTERM until the step has ended and a checkpoint is written.

Tested in tests/training/checkpoints/test_resuming.py.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from .display import print_line


class Interrupts:
    """Records the first signal while the context is entered.

    A signal that stopped a step midway would leave weights, optimizer and position
    inconsistent. A second signal takes effect at once.

    Args:
        active: Whether to handle signals. Only Python's main thread can.
    """

    def __init__(self, active: bool = True):
        main = threading.current_thread() is threading.main_thread()
        self.active = active and main
        self.received: int | None = None
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if self.active:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers_before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._handlers_before.items():
            if handler is not None:  # `None`: it was not set from Python
                signal.signal(number, handler)
        if self.received is not None and error[0] is None:
            # It came after the last check inside.
            signal.raise_signal(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            signal.signal(number, self._handlers_before[number])
            signal.raise_signal(number)
            return
        self.received = number
        print_line(
            "Interrupted: ending the step, then writing a checkpoint. Interrupt again "
            "to stop at once."
        )

    def raise_received(self) -> None:
        """Raises what the signal raises without a handler.

        Raises:
            KeyboardInterrupt: It was Ctrl-C.
            SystemExit: It was SIGTERM. The exit status is 143, as in shells.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)
