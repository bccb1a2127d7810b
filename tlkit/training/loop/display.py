"""What `fit` shows while it runs: a bar on a terminal, a line an epoch in a log."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import tqdm


class Display:
    """Shows the steps of one phase; everything goes to stderr.

    Args:
        title: Name of the phase.
        steps: How many steps it has.
        epochs: How many epochs.
        verbose: 0 for silence.
        done: How many steps were made before it was resumed.
    """

    def __init__(
        self, title: str, *, steps: int, epochs: int, verbose: int, done: int = 0
    ):
        self.title, self.epochs, self.verbose = title, epochs, verbose
        self.bar = None
        if verbose and sys.stderr.isatty():
            self.bar = tqdm.tqdm(total=steps, desc=title, leave=False, initial=done)

    def step(self, loss: float, count: int) -> None:
        """Takes note of some steps."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update(count)

    def epoch(self, number: int, logs: Mapping[str, float], seconds: float) -> None:
        """Shows an epoch's figures; `number` counts from 1."""
        if not self.verbose:
            return
        numbers = {k: v for k, v in logs.items() if isinstance(v, float)}
        figures = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())
        line = f"{self.title} {number}/{self.epochs}: {figures} ({seconds:.1f} s)"
        say(line) if self.bar is None else self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()


def say(text: str) -> None:
    """Prints to stderr, where a command's own output is not."""
    print(text, file=sys.stderr, flush=True)
