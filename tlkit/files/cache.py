"""The cache folder, in which a thing is either whole or not there."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

import platformdirs

_STAGING = ".tlkit-staging-"
_DAY = 24 * 60 * 60


def cache_folder() -> pathlib.Path:
    """Returns the folder that keeps what was fetched.

    It is `TLKIT_CACHE` from the environment, or else the user's cache folder of the
    operating system. It need not exist yet.
    """
    chosen = os.environ.get("TLKIT_CACHE")
    if chosen:
        return pathlib.Path(chosen).expanduser().absolute()
    return pathlib.Path(platformdirs.user_cache_dir("tlkit", appauthor=False))


@contextlib.contextmanager
def staging(beside: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an empty folder on the same disk as `beside`, and removes it at the end.

    What is to stay is moved out of it with `put`. Whatever happens inside, an
    interrupt included, nothing else remains.

    Args:
        beside: Path of the file or folder that is being made.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    _sweep(beside.parent)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=_STAGING, dir=beside.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(made: pathlib.Path, destination: pathlib.Path) -> pathlib.Path:
    """Renames a finished file or folder to its place; who comes first wins.

    Two processes may make the same thing at once: the later one finds the place
    taken, leaves it as it is, and both go on with what is there.

    Args:
        made: The finished file or folder, on the same disk.
        destination: Where it is to stand.

    Returns:
        `destination`.
    """
    try:
        os.replace(made, destination)
    except OSError:
        if not destination.is_dir():
            raise
    return destination


def remove(path: pathlib.Path) -> None:
    """Takes a file or folder out of the cache: first out of sight, then away."""
    with staging(path) as folder, contextlib.suppress(FileNotFoundError):
        os.replace(path, folder / "old")


def _last_written(folder: pathlib.Path) -> float:
    """When something in a folder was written last; a long download is at work."""
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _sweep(folder: pathlib.Path) -> None:
    """Removes what killed processes left, once it is too old to be at work."""
    for left in folder.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - _last_written(left) > _DAY:
                shutil.rmtree(left, ignore_errors=True)
