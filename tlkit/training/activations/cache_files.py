"""Creates, opens and verifies the files of one set of cached activations.

    <folder>/column-0.bin   the array of the first column, without a header
             index.json     the columns, the CRC-32 of each example, and everything
                            that the activations depend on; after an interrupt, also
                            the examples that are missing

The arrays are mapped into memory: the operating system reads the parts in use.
"""

import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...progress import progress
from ..feeds.feed import Feed
from .cached_rows import CachedRows, Column

_INDEX = "index.json"
_MISSING = "missing"  # a key of the index; an index of tlkit 0.1 does not have it


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
        # A full disk raises an error now, not after an hour of computing. Later, a
        # write to the mapped file would kill the process.
        _reserve(_column_path(folder, number), stored_bytes(column, feed))
    checksums = np.zeros(feed.examples, np.uint32)
    written = np.zeros(feed.examples, bool)
    return _map_rows(folder, columns, structure, feed, checksums, written)


def write_index(folder: pathlib.Path, rows: CachedRows, facts: dict[str, Any]) -> None:
    """Writes `index.json`, after all rows are written or after an interrupt.

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
            _MISSING: np.flatnonzero(~rows.written).tolist(),
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
    index = _index_of(folder, facts)
    if index.get(_MISSING):
        raise UnusableCacheError("it is incomplete")
    checksums = np.array(index["checksums"], np.uint32)
    rows = _map_rows(folder, _columns(index), index["structure"], feed, checksums)
    for row in _checking(range(rows.count), verbose):
        if not rows.is_intact(row):
            raise UnusableCacheError(f"example {row:,} in it is damaged")
    return rows


def reopen_rows(
    folder: pathlib.Path,
    columns: Sequence[Column],
    structure: Any,
    feed: Feed,
    facts: dict[str, Any],
    *,
    verbose: int,
) -> CachedRows:
    """Opens the files of an interrupted run, to write the missing examples.

    Args:
        folder: The folder.
        columns: The columns.
        structure: The nest of the columns, as a JSON value.
        feed: The examples.
        facts: Everything that the activations depend on now.
        verbose: 0 for silence.

    Returns:
        The rows, whose `written` are the undamaged examples.

    Raises:
        UnusableCacheError: As for `open_rows`, but not for damaged examples, which are
            computed again.
    """
    index = _index_of(folder, facts)
    if _columns(index) != list(columns):
        raise UnusableCacheError("it has other columns")
    checksums = np.array(index["checksums"], np.uint32)
    written = np.ones(feed.examples, bool)
    written[index[_MISSING]] = False
    rows = _map_rows(folder, columns, structure, feed, checksums, written)
    for row in _checking(np.flatnonzero(written), verbose):
        written[row] = rows.is_intact(row)
    return rows


def _checking(rows: Sequence[int] | np.ndarray, verbose: int) -> Iterator[int]:
    what = "checking activations"
    return progress(rows, total=len(rows), what=what, verbose=verbose)


def stored_bytes(column: Column, feed: Feed) -> int:
    """Returns the size of a column's file."""
    size = math.prod(column.stored_shape(feed.examples, feed.lengths))
    return size * np.dtype(column.dtype).itemsize


def _column_path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"column-{number}.bin"


def _reserve(path: pathlib.Path, size: int) -> None:
    """Creates a file of some size, and reserves the disk space for all of it."""
    with path.open("xb") as file:
        if hasattr(os, "posix_fallocate"):  # macOS does not have it
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))


def _map_rows(folder, columns, structure, feed, checksums, written=None) -> CachedRows:
    arrays, mode = [], "r" if written is None else "r+"
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
        arrays,
        columns,
        structure,
        feed.examples,
        feed.lengths,
        checksums,
        str(folder),
        written,
    )


def _columns(index: dict[str, Any]) -> list[Column]:
    return [Column(**c | {"shape": tuple(c["shape"])}) for c in index["columns"]]


def _index_of(folder: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any]:
    index = _read_index(folder)
    if index["facts"] != json.loads(json.dumps(facts)):
        raise UnusableCacheError("it belongs to another model or to other data")
    return index


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
