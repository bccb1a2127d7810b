"""Rows of activations in files: sharded, checksummed, whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
import weakref
import zlib
from typing import Any

import numpy as np

from ...progress import progress
from .cached_rows import StoredRows

FORMAT = 1
_SHARD_BYTES = 256 * 2**20
_INDEX = "index.json"
_CHECKSUMS = "checksums.npy"


class FileStorage:
    """Rows in files of some 256 MB; no row is divided.

    Args:
        folder: Where the files are.
        offsets: int64 `[rows + 1]`, where each row would begin in one file.
        writes: Whether to make the files, as long as they will be.

    Raises:
        OSError: There is no room for them, or they are not there.
    """

    def __init__(self, folder: pathlib.Path, offsets: np.ndarray, *, writes: bool):
        self.folder, self.offsets = folder, offsets
        self._files: list[int] = []
        weakref.finalize(self, _close, self._files)  # also when Python ends
        self.starts = shard_starts(offsets)
        rows = np.arange(len(offsets) - 1)
        self.shard_of = np.searchsorted(self.starts, rows, "right") - 1
        flags = os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY
        try:
            for shard in range(len(self.starts) - 1):
                self._files.append(os.open(folder / shard_name(shard), flags, 0o644))
                if writes:
                    self._reserve(shard)
        except OSError:
            self.close()
            raise

    def _reserve(self, shard: int) -> None:
        size = self.shard_size(shard)
        if not hasattr(os, "posix_fallocate"):  # macOS
            return
        try:
            # So that a full disk shows now, and not after an hour of computing.
            os.posix_fallocate(self._files[shard], 0, max(size, 1))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise

    def shard_size(self, shard: int) -> int:
        """Bytes of a shard."""
        begin, end = self.offsets[self.starts[shard : shard + 2]]
        return int(end - begin)

    def write(self, row: int, data: bytes) -> None:
        shard, at, _ = self._place(row)
        done = 0
        while done < len(data):
            done += os.pwrite(self._files[shard], data[done:], at + done)

    def read(self, row: int) -> bytes:
        shard, at, size = self._place(row)
        return os.pread(self._files[shard], size, at)

    def _place(self, row: int) -> tuple[int, int, int]:
        shard = int(self.shard_of[row])
        begin, end = self.offsets[row : row + 2]
        at = begin - self.offsets[self.starts[shard]]
        return shard, int(at), int(end - begin)

    def sync(self) -> None:
        """Waits until everything is on the disk."""
        for file in self._files:
            os.fsync(file)

    def close(self) -> None:
        """Closes the files."""
        _close(self._files)


def _close(files: list[int]) -> None:
    while files:
        os.close(files.pop())


def shard_name(shard: int) -> str:
    """The name of a shard's file."""
    return f"rows-{shard:05d}.bin"


def shard_starts(offsets: np.ndarray) -> np.ndarray:
    """The first row of each shard, and the number of rows at the end."""
    shards = offsets[:-1] // _SHARD_BYTES
    firsts = np.flatnonzero(np.diff(shards, prepend=-1))
    return np.append(firsts, len(offsets) - 1)


class Unusable(Exception):
    """What is wrong with a folder of rows."""


def finish(rows: StoredRows, facts: dict[str, Any], described: dict[str, Any]) -> None:
    """Writes what makes a folder of shards complete, last of all.

    Args:
        rows: The rows, all of them written.
        facts: What `read_index` is to compare.
        described: What it is to give back.
    """
    storage = rows.storage
    storage.sync()
    folder = storage.folder
    with (folder / _CHECKSUMS).open("wb") as file:
        np.save(file, rows.checksums)
    index = {
        "format": FORMAT,
        "facts": facts,
        "shards": [storage.shard_size(i) for i in range(len(storage.starts) - 1)],
        "checksums": zlib.crc32((folder / _CHECKSUMS).read_bytes()),
        **described,
    }
    text = json.dumps(index)
    whole = {"index": text, "checksum": zlib.crc32(text.encode())}
    (folder / _INDEX).write_text(json.dumps(whole))


def read_index(folder: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What the index of a folder says.

    Raises:
        Unusable: The folder is not whole, or it is of something else.
    """
    try:
        whole = json.loads((folder / _INDEX).read_text())
        index = json.loads(whole["index"])
        damaged = zlib.crc32(whole["index"].encode()) != whole["checksum"]
    except FileNotFoundError:
        raise Unusable("it is half-written") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Unusable("its index is damaged") from None
    if damaged:
        raise Unusable("its index is damaged")
    if index["format"] != FORMAT:
        raise Unusable("another version of tlkit wrote it")
    if index["facts"] != json.loads(json.dumps(facts)):
        raise Unusable("it is of something else")
    for shard, size in enumerate(index["shards"]):
        path = folder / shard_name(shard)
        if not path.is_file() or path.stat().st_size < size:
            raise Unusable(f"{path.name} is missing or too short")
    path = folder / _CHECKSUMS
    if not path.is_file() or zlib.crc32(path.read_bytes()) != index["checksums"]:
        raise Unusable("its checksums are damaged")
    return index


def read_checksums(folder: pathlib.Path) -> np.ndarray:
    """The CRC-32 of each row."""
    return np.load(folder / _CHECKSUMS)


def check_rows(rows: StoredRows, *, verbose: int) -> None:
    """Makes sure that every row reads as it was written.

    Raises:
        Unusable: One does not.
    """
    for row in progress(
        range(rows.count),
        total=rows.count,
        what="checking activations",
        verbose=verbose,
    ):
        if not rows.is_whole(row):
            raise Unusable(f"example {row:,} in it is damaged")


def make_room(root: pathlib.Path, wanted: int, limit: int) -> bool:
    """Removes folders that were not used for longest, until there is room.

    Args:
        root: Holds a folder for each set of rows.
        wanted: Bytes to come.
        limit: Bytes that all folders may take together.

    Returns:
        Whether there is room now.
    """
    if wanted > limit:
        return False
    folders = [p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")]
    sizes = {path: folder_size(path) for path in folders}
    for path in sorted(folders, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) + wanted <= limit:
            break
        del sizes[path]
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
    return sum(sizes.values()) + wanted <= limit


def folder_size(folder: pathlib.Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
