"""A progress bar for something that writes into a folder."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import threading
from collections.abc import Iterator

import tqdm

_REFRESH = 0.5  # seconds
_LINE_EVERY = 30.0  # seconds, where there is no terminal


@contextlib.contextmanager
def watching(folder: pathlib.Path, what: str, *, verbose: int) -> Iterator[None]:
    """Shows how much has been written into a folder, as long as the block runs.

    How much is still to come isn't known: tensorflow-hub does not tell.

    Args:
        folder: The folder that grows.
        what: What is being fetched, for the label.
        verbose: 0 is silent, 1 shows a bar in a terminal and lines elsewhere.
    """
    if not verbose:
        yield
        return
    print(f"Fetching {what}", file=sys.stderr, flush=True)
    done = threading.Event()
    show = _show_bar if sys.stderr.isatty() else _show_lines
    watcher = threading.Thread(target=show, args=(folder, done), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _show_bar(folder: pathlib.Path, done: threading.Event) -> None:
    with tqdm.tqdm(unit="B", unit_scale=True, file=sys.stderr) as bar:
        while not done.wait(_REFRESH):
            bar.update(max(0, _size(folder) - bar.n))


def _show_lines(folder: pathlib.Path, done: threading.Event) -> None:
    while not done.wait(_LINE_EVERY):
        megabytes = _size(folder) / 1e6
        print(f"  {megabytes:,.0f} MB so far", file=sys.stderr, flush=True)


def _size(folder: pathlib.Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
