"""Activations of many examples as bytes with random access, in memory or in files."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..feeds.array_rows import Lengths, gather_in_python


@dataclasses.dataclass(frozen=True)
class Column:
    """One value that each example has.

    Attributes:
        dtype: As which it is stored.
        shape: Of one example; without its first axis, the length, if that varies.
        varies: Whether the length of the first axis is that of the example.
        missing: What it is padded with then.
        read_as: The dtype that it is read as.
    """

    dtype: str
    shape: tuple[int, ...]
    varies: bool = False
    missing: int = 0
    read_as: str = ""

    def size(self, length: int) -> int:
        """Bytes of an example."""
        numbers = int(np.prod(self.shape, dtype=np.int64)) * (
            length if self.varies else 1
        )
        return numbers * np.dtype(self.dtype).itemsize


class Storage(Protocol):
    """Bytes that are written and read at places."""

    def write(self, row: int, data: bytes) -> None:
        """Writes all bytes of a row."""

    def read(self, row: int) -> memoryview | bytes:
        """Reads all bytes of a row."""


class MemoryStorage:
    """Rows in one stretch of memory.

    Args:
        offsets: int64 `[rows + 1]`, where each row begins and ends.
    """

    def __init__(self, offsets: np.ndarray):
        self.offsets = offsets
        self.memory = np.empty(int(offsets[-1]), np.uint8)

    def write(self, row: int, data: bytes) -> None:
        begin, end = self.offsets[row : row + 2]
        self.memory[begin:end] = np.frombuffer(data, np.uint8)

    def read(self, row: int) -> memoryview:
        begin, end = self.offsets[row : row + 2]
        return memoryview(self.memory)[begin:end]

    def read_alike(self, rows: np.ndarray) -> np.ndarray:
        """uint8 `[rows, bytes]`: some rows, where all of them are equally long."""
        return self.memory.reshape(len(self.offsets) - 1, -1)[rows]


class StoredRows:
    """Rows of activations; see `tlkit.training.rows.Rows`.

    Args:
        storage: Where the bytes are.
        structure: A nest that the columns are packed into, in flattened order.
        columns: The columns.
        lengths: How long the examples are, where they differ.
        count: How many there are.
        checksums: uint32 `[count]`, CRC-32 of each row, or `None` where nothing can
            have happened to them.
        where: What the rows are, for messages.
    """

    def __init__(
        self,
        storage: Storage,
        structure: Any,
        columns: Sequence[Column],
        *,
        count: int,
        lengths: Lengths | None = None,
        checksums: np.ndarray | None = None,
        where: str = "",
    ):
        self.storage, self.structure = storage, structure
        self.columns, self.lengths, self.count = tuple(columns), lengths, count
        self.checksums, self.where = checksums, where
        self._vary = any(column.varies for column in self.columns)

    def write(self, row: int, values: Sequence[np.ndarray]) -> None:
        """Writes one row: the columns of one example, of its own length."""
        pairs = zip(self.columns, values, strict=True)
        data = b"".join(np.ascontiguousarray(v, c.dtype).tobytes() for c, v in pairs)
        if self.checksums is not None:
            self.checksums[row] = zlib.crc32(data)
        self.storage.write(row, data)

    def is_whole(self, row: int) -> bool:
        """Whether a row reads as it was written."""
        return zlib.crc32(self.storage.read(row)) == self.checksums[row]

    def read(self, places: np.ndarray) -> list[np.ndarray]:
        """Dense arrays `[batch, …]` of the columns of some rows.

        Raises:
            TrainingError: A row is not as it was written.
        """
        if isinstance(self.storage, MemoryStorage) and not self._vary:
            return self._read_alike(places)
        each = self._lengths(places)
        longest = 0 if self.lengths is None or not len(each) else int(each.max())
        if self.lengths is not None:
            longest = int(self.lengths.padded_length(longest))
        made = [self._empty(column, len(places), longest) for column in self.columns]
        for i, (place, length) in enumerate(zip(places, each, strict=True)):
            data, begin = self._checked(int(place)), 0
            for column, array in zip(self.columns, made, strict=True):
                size = column.size(int(length))
                part = np.frombuffer(data[begin : begin + size], column.dtype)
                begin += size
                if column.varies:
                    array[i, :length] = part.reshape(int(length), *column.shape)
                else:
                    array[i] = part.reshape(column.shape)
        return made

    def _read_alike(self, places: np.ndarray) -> list[np.ndarray]:
        # Features are short: row by row would take longer than to train on them.
        data, begin, made = self.storage.read_alike(places), 0, []
        for column in self.columns:
            end = begin + column.size(0)
            part = np.ascontiguousarray(data[:, begin:end]).view(column.dtype)
            part = part.reshape(len(places), *column.shape)
            made.append(part.astype(column.read_as or column.dtype, copy=False))
            begin = end
        return made

    def gather(self, places: tf.Tensor) -> Any:
        """The nest of dense tensors of some rows, in a graph too."""
        specs = [
            tf.TensorSpec([None, *self._static(c)], c.read_as or c.dtype)
            for c in self.columns
        ]
        return gather_in_python(self.read, places, specs, self.structure)

    def digest(self) -> str:
        """Activations of activations are not kept, so nothing asks for one."""
        raise NotImplementedError

    def _static(self, column: Column) -> list[int | None]:
        if not column.varies:
            return list(column.shape)
        # Known where all batches are padded alike.
        ends = [
            self.lengths.padded_length(n) for n in (1, int(self.lengths.each.max()))
        ]
        return [ends[0] if ends[0] == ends[1] else None, *column.shape]

    def _lengths(self, places: np.ndarray) -> np.ndarray:
        if self.lengths is None:
            return np.zeros(len(places), np.int64)
        return self.lengths.each[places]

    def _empty(self, column: Column, batch: int, longest: int) -> np.ndarray:
        dtype = column.read_as or column.dtype
        if not column.varies:
            return np.empty((batch, *column.shape), dtype)
        return np.full((batch, longest, *column.shape), column.missing, dtype)

    def _checked(self, row: int) -> memoryview | bytes:
        data = self.storage.read(row)
        if self.checksums is not None and zlib.crc32(data) != self.checksums[row]:
            raise TrainingError(
                f"What was kept of example {row:,} in {self.where} is damaged. Delete "
                "that folder; fit(…, resume=True) computes it anew."
            )
        return data


def row_offsets(
    columns: Sequence[Column], count: int, lengths: Lengths | None
) -> np.ndarray:
    """int64 `[count + 1]`: where the bytes of each row begin and end."""
    if lengths is None:
        sizes = np.full(count, sum(column.size(0) for column in columns), np.int64)
    else:
        fixed = sum(column.size(0) for column in columns)
        growing = sum(column.size(1) for column in columns) - fixed
        sizes = fixed + growing * np.asarray(lengths.each, np.int64)
    return np.concatenate([[0], np.cumsum(sizes)])
