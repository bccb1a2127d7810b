"""The progress of slow work: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

_Item = TypeVar("_Item")
_SECONDS = 10.0  # between two lines in a log


def progress(
    items: Iterable[_Item], *, total: int, what: str, verbose: int = 1
) -> Iterator[_Item]:
    """Yields the items, and shows how far they are.

    Args:
        items: What to go through.
        total: How many there are.
        what: What is done with them, such as `"checking pictures"`.
        verbose: 0 is silent.

    Yields:
        The items.
    """
    if not verbose:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm.tqdm(items, total=total, desc=what, leave=False)
    else:
        yield from _with_lines(items, total, what)


def _with_lines(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= _SECONDS:
            said = now
            left = (now - start) / done * (total - done)
            print(f"{what}: {done:,} of {total:,}, {left:,.0f} s left", file=sys.stderr)
