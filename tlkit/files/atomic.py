"""A folder that is written beside its place, and appears when it is whole.

The cache folder, in which a thing is either whole or not there.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator

import platformdirs

from ..errors import DataError

_WRITING = ".writing-"
_DAY = 24 * 60 * 60


@contextlib.contextmanager
def folder_in_making(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an empty folder on the same disk, and at the end moves it to its place.

    After an error nothing remains of it. What killed processes left is removed.

    Args:
        final: Where it is to stand: nothing, or an empty folder.

    Raises:
        DataError: It cannot be written.
    """
    mine = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder = final.parent / f".{final.name}{_WRITING}{mine}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final)
        folder.mkdir()
        yield folder
        sync_folder(folder)
        os.rename(folder, final)
        sync_folder(final.parent)
    except OSError as error:
        raise DataError(
            f"{final} could not be written: {error.strerror or error}. Nothing of it "
            "was kept. Make room, or name a folder on another disk."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(final: pathlib.Path) -> None:
    """Removes what killed processes left."""
    for left in final.parent.glob(f".{glob.escape(final.name)}{_WRITING}*"):
        host, pid = left.name.split(_WRITING)[-1].rsplit("-", 2)[:2]
        here = host == socket.gethostname() and pid.isdigit()
        with contextlib.suppress(OSError):
            old = time.time() - left.stat().st_mtime > _DAY
            if old or (here and not _alive(int(pid))):
                shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there os.kill ends the process, whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_synced(path: pathlib.Path, contents: bytes) -> None:
    """Writes a file that outlives a power failure."""
    with open(path, "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: pathlib.Path) -> None:
    """Sees to it that the names in a folder outlive a power failure."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# === Cache ===


_STAGING = ".tlkit-staging-"


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
    _sweep_staging(beside.parent)
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


def _sweep_staging(folder: pathlib.Path) -> None:
    """Removes what killed processes left, once it is too old to be at work."""
    for left in folder.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - _last_written(left) > _DAY:
                shutil.rmtree(left, ignore_errors=True)
