"""A folder that is written beside its place, and appears when it is whole."""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import shutil
import socket
import time
import uuid
from collections.abc import Iterator

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
