"""Unpacks untrusted archives: rejects dangerous contents before writing them.

`tarfile` alone is not enough. Its filters stop path traversal, but not decompression
bombs. In streaming mode it does not compare gzip's checksum, so that a flipped bit goes
unnoticed (tensorflow-hub reads its downloads like that).
"""

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

# The largest published encoders have about 10 GB and a hundred files.
MAX_BYTES = 64 * 10**9
_MAX_FILES = 10_000
# Unpacked by packed size. gzip reaches up to 1,030, weights about 1, graphs up to 20.
_MAX_RATIO = 200
_ALWAYS_ALLOWED = 100 * 10**6  # bytes, whatever the ratio


class UnsafeArchive(ValueError):
    """An archive has contents that could do harm; the message says which."""


class IncompleteArchive(ValueError):
    """An archive lacks its end mark."""


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks a `.tar` or `.tar.gz` into an empty folder.

    Args:
        archive: The archive.
        folder: The folder. After an error it may hold some of the files.

    Raises:
        UnsafeArchive: The archive contains path traversal, a link, a device or two
            files of one name, or is a decompression bomb.
        IncompleteArchive: All files could be read, but the end mark is missing.
        tarfile.TarError, OSError, EOFError, zlib.error: It is damaged, or no archive.
    """
    with archive.open("rb") as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
    opener = gzip.open if is_packed else open
    with opener(archive, "rb") as file:
        stream = _LimitedReader(file, archive.stat().st_size, folder)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in _members(tar):
                _write(tar, member, path_inside(folder, member.name))
            end = tar.offset
        # Read on to the end of the gzip stream: only there is its checksum compared.
        stream.drain()
    if not is_packed:
        _check_end(archive, end)


def path_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path in `folder` of a name from an untrusted source.

    Raises:
        UnsafeArchive: The name leads out of the folder, here or on Windows.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    windows = pathlib.PureWindowsPath(name)
    if name.startswith("/") or ".." in parts or "\\" in name or windows.drive:
        raise UnsafeArchive(f"{name!r} leads out of the folder")
    return folder.joinpath(*parts)


def _check_end(archive: pathlib.Path, end: int) -> None:
    """Verifies the end mark, since `tarfile` silently stops at a damaged header."""
    with archive.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise IncompleteArchive(
                "the archive lacks its end mark: it was truncated or damaged."
            )


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= _MAX_FILES:
            raise UnsafeArchive(f"it holds more than {_MAX_FILES:,} files")
        yield member


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: pathlib.Path) -> None:
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            return
        # A sparse file is small in the archive and of any size on the disk.
        if not member.isreg() or member.issparse() or member.size < 0:
            raise UnsafeArchive(f"{member.name!r} is {_kind(member)}, not a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x": two names may mean one file, on a disk that ignores upper case.
        with path.open("xb") as file:
            shutil.copyfileobj(tar.extractfile(member), file, _CHUNK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UnsafeArchive(f"it holds {member.name!r} twice") from error


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "a device or a pipe" if member.isdev() else "of an unknown kind"


class _LimitedReader:
    """A stream that stops decompression bombs: counts bytes, since headers may lie.

    Args:
        file: The stream of unpacked bytes.
        packed_size: Bytes of the archive.
        folder: A folder on the disk that the bytes go to.
    """

    def __init__(self, file: BinaryIO, packed_size: int, folder: pathlib.Path) -> None:
        self._file = file
        self._packed_size = packed_size
        self._free = shutil.disk_usage(folder).free
        self._count = 0

    def read(self, size: int) -> bytes:
        """Reads at most `size` bytes, and never more than 1 MiB at once."""
        data = self._file.read(min(size, _CHUNK))
        self._count += len(data)
        self._check()
        return data

    def drain(self) -> None:
        """Reads to the end."""
        while self.read(_CHUNK):
            pass

    def _check(self) -> None:
        sizes = f"{self._packed_size:,} bytes unpack to more than {self._count:,}"
        if self._count > max(_ALWAYS_ALLOWED, _MAX_RATIO * self._packed_size):
            raise UnsafeArchive(f"it is a decompression bomb: {sizes}")
        if self._count > MAX_BYTES:
            raise UnsafeArchive(f"{sizes}; no encoder is so large")
        if self._count > self._free:
            text = f"{sizes}, and the disk has {self._free:,} bytes free"
            raise OSError(errno.ENOSPC, text)
