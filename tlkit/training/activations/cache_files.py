"""Creates, opens and verifies the files of one set of cached activations.

    <folder>/column-0.bin   the array of the first column, without a header
             index.json     the columns, the CRC-32 of each example, and everything
                            that the activations depend on

The arrays are mapped into memory: the operating system reads the parts in use.
"""

import json
import math
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...progress import progress
from ..feeds.feed import Feed
from .cached_rows import CachedRows, Column

_INDEX = "index.json"


class UnusableCacheError(Exception):
    """The files in a folder cannot be used; the message is the reason."""


def create_rows(
    folder: pathlib.Path, columns: Sequence[Column], structure: Any, feed: Feed
) -> CachedRows:
    """Creates files for the activations of all examples, in their full size.

    Args:
        folder: An empty folder.
        columns: The columns.
        structure: The nest of the columns, as a JSON value.
        feed: The examples.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    for number, column in enumerate(columns):
        # A full disk raises an error now, not after an hour of computing. A write to
        # a mapped file would end the process.
        _reserve(_column_path(folder, number), stored_bytes(column, feed))
    checksums = np.zeros(feed.examples, np.uint32)
    return _map_rows(folder, columns, structure, feed, checksums, mode="r+")


def write_index(folder: pathlib.Path, rows: CachedRows, facts: dict[str, Any]) -> None:
    """Completes the files, after all rows have been written.

    Args:
        folder: The folder.
        rows: The rows that `create_rows` returned.
        facts: Everything that the activations depend on, as JSON values.
    """
    text = json.dumps(
        {
            "facts": facts,
            "structure": rows.structure,
            "columns": [vars(column) for column in rows.columns],
            "checksums": rows.checksums.tolist(),
        }
    )
    signed = {"index": text, "checksum": zlib.crc32(text.encode())}
    (folder / _INDEX).write_text(json.dumps(signed))


def open_rows(
    folder: pathlib.Path, facts: dict[str, Any], feed: Feed, *, verbose: int
) -> CachedRows:
    """Opens the files in a folder and verifies the checksum of every example.

    Args:
        folder: The folder.
        facts: Everything that the activations depend on now.
        feed: The examples.
        verbose: 0 for silence.

    Raises:
        UnusableCacheError: A file is missing or damaged, or the activations depend on
            something else.
    """
    index = _read_index(folder)
    if index["facts"] != json.loads(json.dumps(facts)):
        raise UnusableCacheError("it belongs to another model or to other data")
    columns = [Column(**c | {"shape": tuple(c["shape"])}) for c in index["columns"]]
    checksums = np.array(index["checksums"], np.uint32)
    rows = _map_rows(folder, columns, index["structure"], feed, checksums, mode="r")
    what, count = "checking activations", rows.count
    for row in progress(range(count), total=count, what=what, verbose=verbose):
        if not rows.is_intact(row):
            raise UnusableCacheError(f"example {row:,} in it is damaged")
    return rows


def stored_bytes(column: Column, feed: Feed) -> int:
    """Returns the size of a column's file."""
    size = math.prod(column.stored_shape(feed.examples, feed.lengths))
    return size * np.dtype(column.dtype).itemsize


def _column_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"column-{number}.bin"


def _reserve(path: pathlib.Path, size: int) -> None:
    """Creates a file whose bytes are on the disk, not only promised."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))


def _map_rows(folder, columns, structure, feed, checksums, *, mode) -> CachedRows:
    arrays = []
    for number, column in enumerate(columns):
        path = _column_path(folder, number)
        shape = column.stored_shape(feed.examples, feed.lengths)
        try:
            # Without a header: NumPy's own format has no bfloat16.
            array = np.memmap(path, column.dtype, mode, shape=shape)
        except (FileNotFoundError, ValueError):
            raise UnusableCacheError(f"{path.name} is missing or too short") from None
        arrays.append(np.asarray(array))
    return CachedRows(
        arrays, columns, structure, feed.examples, feed.lengths, checksums, str(folder)
    )


def _read_index(folder: pathlib.Path) -> dict[str, Any]:
    try:
        signed = json.loads((folder / _INDEX).read_text())
        if zlib.crc32(signed["index"].encode()) == signed["checksum"]:
            return json.loads(signed["index"])
    except FileNotFoundError:
        raise UnusableCacheError("its index is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UnusableCacheError("its index is damaged")
