"""A folder in one file, the same bytes each time."""

from __future__ import annotations

import gzip
import pathlib
import tarfile

from ..errors import SourceError
from .store.lock import LOCK_FILE, Lock

_PACKED = (".gz", ".tgz")
_NO_LOCK = (OSError, ValueError, LookupError, TypeError, AttributeError)


def write_bundle(folder: pathlib.Path, lock: Lock, path: pathlib.Path) -> None:
    """Writes a folder and its lock into a `.tar`, packed if its name says so.

    The lock comes first, then the files by their names. Owners and times are left
    out, so that the same files give the same archive.
    """
    packed = path.name.lower().endswith(_PACKED)
    with path.open("xb") as raw:
        stream = gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in (LOCK_FILE, *sorted(lock.files)):
                with (folder / name).open("rb") as file:
                    member = tarfile.TarInfo(name)
                    member.size = (folder / name).stat().st_size
                    tar.addfile(member, file)
        if packed:
            stream.close()


def read_lock(path: pathlib.Path) -> Lock:
    """Returns the lock of a folder or a bundle that `tlkit fetch` wrote.

    Raises:
        SourceError: There is none.
    """
    try:
        if path.is_dir():
            text = (path / LOCK_FILE).read_bytes()
        else:
            with tarfile.open(path, "r|*") as tar:
                first = tar.next()
                text = tar.extractfile(first).read() if first.name == LOCK_FILE else b""
        return Lock.from_json(text.decode("utf-8"))
    except (*_NO_LOCK, tarfile.TarError) as error:
        raise SourceError(f"There is no {LOCK_FILE} in {path} ({error}).") from error
