"""Ends `fit` after Ctrl-C or SIGTERM, at a point from which it can be resumed.

Tested in tests/training/loop/test_interrupts.py.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import tensorflow as tf

from .display import print_line


class StoppedTraceError(BaseException):
    """A signal came while TensorFlow traced a function, when no weight changes."""


class Interrupts:
    """Handles Ctrl-C and SIGTERM while the context is entered.

    The first signal raises `KeyboardInterrupt` or `SystemExit` at once, except inside
    `deferred`. A second signal always takes effect at once.

    Args:
        active: Whether to handle signals. Only Python's main thread can.

    Attributes:
        received: The number of the first signal, or `None`.
    """

    def __init__(self, active: bool = True):
        main = threading.current_thread() is threading.main_thread()
        self.active = active and main
        self.received: int | None = None
        self._is_deferred = self._stops_traces = False
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if self.active:
            for number in (signal.SIGINT, signal.SIGTERM):
                # Signals that nohup or a shell's `&` ignores stay ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers_before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._handlers_before.items():
            if handler is not None:  # `None`: it was not set from Python
                signal.signal(number, handler)
        if self.received is not None and error[0] is None:
            # The signal came after the last check in the context.
            signal.raise_signal(self.received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Records the first signal, and raises its exception at the end of the context.

        Use it for code that changes the run: an exception midway would leave weights,
        optimizer and position inconsistent. Such code reads `received` between its
        steps.
        """
        self._is_deferred = self.active
        try:
            yield
        finally:
            self._is_deferred = False
        if self.received is not None:
            self.raise_received()

    @contextlib.contextmanager
    def stopping_traces(self, allowed: bool) -> Iterator[None]:
        """Raises `StoppedTraceError` if a signal comes while a function is traced.

        Tracing a large network takes many seconds, and changes no weights. It runs in
        Python, so it can be stopped there; the execution that follows cannot.

        Args:
            allowed: Whether to raise at all; `False` turns the context off.
        """
        self._stops_traces = allowed
        try:
            yield
        finally:
            self._stops_traces = False

    def raise_received(self) -> None:
        """Raises the exception of the received signal.

        Raises:
            KeyboardInterrupt: It was Ctrl-C.
            SystemExit: It was SIGTERM. The exit status is 143, as in shells.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None:
            signal.signal(number, self._handlers_before[number] or signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.received = number
        if not self._is_deferred:
            self.raise_received()
        # Printing fails if the signal came while the process was printing.
        with contextlib.suppress(RuntimeError):
            print_line(
                "Interrupted: ending the step, then writing a checkpoint. Interrupt "
                "again to stop at once."
            )
        if self._stops_traces and not tf.executing_eagerly():
            raise StoppedTraceError
