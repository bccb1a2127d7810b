"""Shows the progress of `fit` on stderr: a bar on a terminal, a line an epoch in a log.

Tested in tests/training/test_fitting.py.
"""

import sys
from collections.abc import Mapping

import tqdm

from ...progress import print_line as print_line


class Display:
    """Shows the progress of one phase, of whose `steps` the first `done` are over."""

    def __init__(
        self, title: str, *, steps: int, epochs: int, verbose: int, done: int = 0
    ):
        self.title, self.epochs, self.verbose = title, epochs, verbose
        self.bar = None
        if verbose and sys.stderr.isatty():
            self.bar = tqdm.tqdm(total=steps, desc=title, leave=False, initial=done)

    def step(self, loss: float, count: int) -> None:
        """Advances the bar by `count` steps."""
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update(count)

    def epoch(self, number: int, logs: Mapping[str, float], seconds: float) -> None:
        """Prints the logs of an epoch; `number` counts from 1."""
        if not self.verbose:
            return
        scalars = {k: v for k, v in logs.items() if isinstance(v, float)}
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in scalars.items())
        line = f"{self.title} {number}/{self.epochs}: {metrics} ({seconds:.1f} s)"
        print_line(line) if self.bar is None else self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
