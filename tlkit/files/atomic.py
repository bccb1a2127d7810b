"""Writes files and folders atomically: a reader sees a complete one, or none.

Everything is written into a temporary folder on the same disk, whose name begins with
`.tlkit-staging-`, and renamed into place when it is complete. After an error, Ctrl-C or
SIGTERM, the temporary folder is removed. One that a killed process left is removed by
the next writer to the same parent folder.

    with atomic_file(path) as temporary:          # one file; replaces the old one
        temporary.write_text(text)
    with atomic_folder(path, sync=True) as temporary:   # a folder; path must be free
        (temporary / "index.json").write_text(text)
    with staging(path) as folder:                 # whatever else is needed
        download(folder / "archive")
        move_into_place(folder / "unpacked", path, first_wins=True)
"""

import contextlib
import errno
import functools
import hashlib
import os
import pathlib
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator

from .termination import exit_on_sigterm

_PREFIX = ".tlkit-staging-"
_DAY = 24 * 60 * 60
# Some network drives raise these errors.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def atomic_file(path: pathlib.Path, *, sync: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path, and renames the file written there to `path`.

    Args:
        path: The file. An older one is replaced; after an error it is unchanged.
        sync: Whether the file must survive a power failure.

    Raises:
        OSError: The file cannot be written.
    """
    with staging(path) as folder:
        temporary = folder / path.name
        yield temporary
        move_into_place(temporary, path, sync=sync)


@contextlib.contextmanager
def atomic_folder(
    path: pathlib.Path, *, sync: bool = False, only_writer: bool = False
) -> Iterator[pathlib.Path]:
    """Yields an empty temporary folder, and renames it to `path` at the end.

    Args:
        path: The folder, which must not exist or be empty.
        sync: Whether its files must survive a power failure.
        only_writer: See `staging`.

    Raises:
        OSError: The folder cannot be written, or `path` is taken.
    """
    with staging(path, only_writer=only_writer) as folder:
        temporary = folder / path.name
        temporary.mkdir()
        yield temporary
        move_into_place(temporary, path, sync=sync)


@contextlib.contextmanager
def staging(
    destination: pathlib.Path, *, only_writer: bool = False
) -> Iterator[pathlib.Path]:
    """Yields an empty temporary folder beside `destination`; removes it at the end.

    Results are moved out of it with `move_into_place`.

    Args:
        destination: The file or folder to be written. Its parent is made if missing.
        only_writer: Whether no other process writes to the parent folder now. All
            temporary folders in it are then leftovers, whatever their age.

    Raises:
        OSError: The temporary folder cannot be made.
    """
    parent = destination.parent
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, everything=only_writer)
    prefix = f"{_PREFIX}{_machine()}-{os.getpid()}-"
    with exit_on_sigterm():
        folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def move_into_place(
    made: pathlib.Path,
    destination: pathlib.Path,
    *,
    first_wins: bool = False,
    sync: bool = False,
) -> pathlib.Path:
    """Renames a finished file or folder to its destination, in one step.

    A file replaces an older file. A folder replaces nothing but an empty folder.

    Args:
        made: The finished file or folder, on the same disk.
        destination: Its final path.
        first_wins: Whether a folder that another process put at `destination` in the
            meantime is left there and used. Otherwise it is an error.
        sync: Whether the contents must survive a power failure.

    Returns:
        `destination`.

    Raises:
        OSError: The rename failed, or `destination` is taken.
    """
    if sync:
        _sync(made)
    try:
        os.replace(made, destination)
    except OSError:
        if not (first_wins and made.is_dir() and destination.is_dir()):
            raise
    if sync:
        _sync_folder(destination.parent)
    return destination


def remove(path: pathlib.Path) -> None:
    """Removes a file or folder: renames it in one step, then deletes its contents."""
    with staging(path) as folder, contextlib.suppress(FileNotFoundError):
        os.replace(path, folder / "removed")


def _sync(path: pathlib.Path) -> None:
    """Waits until a file, or a folder with everything in it, is on the disk."""
    if path.is_dir():
        for child in path.iterdir():
            _sync(child)
        _sync_folder(path)
        return
    # Windows syncs only what is open for writing; a file may be read-only elsewhere.
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: pathlib.Path) -> None:
    """Waits until the names in a folder are on the disk, where that is possible."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def _sweep(parent: pathlib.Path, *, everything: bool) -> None:
    """Removes the temporary folders that killed processes left in `parent`."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process may be removing it, too
            if everything or _is_left_over(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: pathlib.Path) -> bool:
    """Returns whether the writer of a temporary folder has died.

    A process on this machine can be looked up. Another writer counts as dead a day
    after it last wrote, since a download may take hours.
    """
    machine, _, rest = folder.name.removeprefix(_PREFIX).partition("-")
    pid = rest.partition("-")[0]
    if machine == _machine() and pid.isdecimal():
        return not _is_alive(int(pid))
    paths = (folder, *folder.rglob("*"))
    return time.time() - max(path.lstat().st_mtime for path in paths) > _DAY


@functools.cache
def _machine() -> str:
    """Returns an id of the host, its boot and the container: pids are unique there."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux only
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text()
        parts += [boot, os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # on Windows, os.kill ends the process, whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        pass
    return True
