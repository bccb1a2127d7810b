"""Unpacks archives from strangers: what could do harm is refused before it is written.

`tarfile` alone would do: its filters hold back names that lead out, but not bombs; and
in the mode that reads streams it leaves gzip's checksum alone, so that a flipped bit
goes unnoticed (tensorflow-hub reads its downloads so).
"""

from __future__ import annotations

import errno
import gzip
import pathlib
import shutil
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_BLOCK = 512

# The largest published encoders have some 10 GB and a hundred files.
MOST_BYTES = 64 * 10**9
_MOST_MEMBERS = 10_000
# gzip makes at best 1 of 1,030. Weights hardly shrink; graphs do, by ten or twenty.
_MOST_RATIO = 200
_ALWAYS_FINE = 100 * 10**6  # bytes, whatever the ratio


class UnsafeArchive(ValueError):
    """Why an archive is not unpacked."""


class CutArchive(ValueError):
    """An archive lacks the mark that stands at its end."""


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks a `.tar` or `.tar.gz` into an empty folder.

    Args:
        archive: The archive.
        folder: The folder, which may hold some of it after an error.

    Raises:
        UnsafeArchive: It holds a name that leads out of the folder, a link, a device
            or two files of one name, or is a bomb.
        CutArchive: All that is there could be read, but the end is not there.
        tarfile.TarError, OSError, EOFError, zlib.error: It is damaged, or no archive.
    """
    with archive.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    opener = gzip.open if packed else open
    with opener(archive, "rb") as file:
        stream = _Counted(file, archive.stat().st_size, folder)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in _members(tar):
                _write(tar, member, place_inside(folder, member.name))
            end = tar.offset
        # gzip compares its checksum at the end, and a tar's end is before that.
        stream.drain()
    if not packed:
        _check_end(archive, end)


def place_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a name from outside in a folder.

    Raises:
        UnsafeArchive: The name leads out of the folder, here or on Windows.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    windows = pathlib.PureWindowsPath(name)
    if name.startswith("/") or ".." in parts or "\\" in name or windows.drive:
        raise UnsafeArchive(f"{name!r} leads out of the folder")
    return folder.joinpath(*parts)


def _check_end(archive: pathlib.Path, end: int) -> None:
    """Looks at what made `tarfile` stop, which takes a damaged header for the end."""
    with archive.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise CutArchive("the archive lacks its end mark: it was cut or damaged.")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= _MOST_MEMBERS:
            raise UnsafeArchive(f"it holds more than {_MOST_MEMBERS:,} files")
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: pathlib.Path) -> None:
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            return
        # A sparse file is small in the archive and as large as it likes on the disk.
        if not member.isreg() or member.issparse() or member.size < 0:
            raise UnsafeArchive(f"{member.name!r} is {_kind(member)}, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x": two names may be one, where the disk takes A for a.
        with path.open("xb") as file:
            shutil.copyfileobj(tar.extractfile(member), file, _CHUNK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeArchive(f"it holds {member.name!r} twice") from error


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a device or a pipe" if member.isdev() else "of an unknown kind"


class _Counted:
    """A stream that ends a bomb early: it counts what comes, and believes no header."""

    def __init__(self, file: BinaryIO, packed: int, folder: pathlib.Path) -> None:
        self._file = file
        self._packed = packed
        self._free = shutil.disk_usage(folder).free
        self._count = 0

    def read(self, size: int) -> bytes:
        """Reads up to so many bytes, and never many at once."""
        data = self._file.read(min(size, _CHUNK))
        self._count += len(data)
        self._check()
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    def _check(self) -> None:
        of = f"{self._packed:,} bytes become more than {self._count:,}"
        if self._count > max(_ALWAYS_FINE, _MOST_RATIO * self._packed):
            raise UnsafeArchive(f"it is a bomb: {of}")
        if self._count > MOST_BYTES:
            raise UnsafeArchive(f"{of}; no encoder is so large")
        if self._count > self._free:
            lack = f"{of}, and the disk has {self._free:,} free"
            raise OSError(errno.ENOSPC, lack)
