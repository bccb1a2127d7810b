"""Progress of slow work on stderr: a bar on a terminal, lines in a log file.

Tested in tests/test_progress.py.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

_Item = TypeVar("_Item")
_SECONDS = 10.0  # between two lines in a log


def progress(
    items: Iterable[_Item], *, total: int | None, what: str, verbose: int = 1
) -> Iterator[_Item]:
    """Yields the items, and shows how many are done and the time left.

    Args:
        items: The items.
        total: The number of items; `None` if unknown.
        what: The work, such as `"checking images"`.
        verbose: 0 is silent.
    """
    if not verbose:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm.tqdm(items, total=total, desc=what, leave=False)
    else:
        yield from _with_lines(items, total, what)


def print_line(text: str) -> None:
    """Prints a line to stderr, since stdout is for the output of a command.

    A line that cannot be written, for instance to a log on a full disk, is dropped: a
    missing line must not stop hours of training.

    Raises:
        BrokenPipeError: The process that read stderr has ended.
    """
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _with_lines(
    items: Iterable[_Item], total: int | None, what: str
) -> Iterator[_Item]:
    start = last_line = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last_line >= _SECONDS:
            last_line = now
            line = f"{what}: {done:,}"
            if total:
                left = (now - start) / done * (total - done)
                line += f" of {total:,}, {left:,.0f} s left"
            print_line(line)
