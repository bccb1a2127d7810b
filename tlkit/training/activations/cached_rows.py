"""Cached activations as arrays with random access, in memory or mapped from files.

Each value that an example has at a cut is a column, stored as one array. A column of
texts holds their tokens without padding, one text after the other.
"""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..feeds.array_rows import Lengths, gather_in_python


@dataclasses.dataclass(frozen=True)
class Column:
    """The dtype and shape of one value that each example has.

    Attributes:
        dtype: The stored dtype.
        shape: The shape of one example's value, without its first axis if `varies`.
        varies: Whether the length of the value's first axis is the example's length.
        missing: The value that pads this axis in a batch.
        read_as: The dtype of the column in a batch; by default the stored one.
    """

    dtype: str
    shape: tuple[int, ...]
    varies: bool = False
    missing: int = 0
    read_as: str = ""

    def stored_shape(self, count: int, lengths: Lengths | None) -> tuple[int, ...]:
        """Returns the shape of the array with the values of `count` examples."""
        return (int(np.sum(lengths.each)) if self.varies else count, *self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class CachedRows:
    """The activations of all examples; implements `feeds.array_rows.Rows`.

    Attributes:
        arrays: One array for each column, of its `stored_shape`.
        columns: The columns.
        structure: The nest that the columns are packed into, in flattened order.
        count: The number of examples.
        lengths: The lengths of the examples, if they differ.
        checksums: uint32 `[count]`, the CRC-32 of each example; `None` for arrays in
            memory, which are not checked.
        folder: The folder of the files, for error messages.
        written: bool `[count]`, the examples whose values are in the files; `None` if
            all are, and for arrays in memory.
    """

    arrays: Sequence[np.ndarray]
    columns: Sequence[Column]
    structure: Any
    count: int
    lengths: Lengths | None = None
    checksums: np.ndarray | None = None
    folder: str = ""
    written: np.ndarray | None = None

    def write(self, indices: np.ndarray, batch: Sequence[np.ndarray]) -> None:
        """Stores the values of some examples.

        Args:
            indices: int64 `[batch]`, the indices of the examples.
            batch: One array `[batch, …]` for each column, padded if the column varies.
        """
        for column, array, values in zip(self.columns, self.arrays, batch, strict=True):
            if not column.varies:
                array[indices] = values
                continue
            for row, value in zip(indices, values, strict=True):
                stored = self._stored(column, array, row)
                stored[:] = value[: len(stored)]
        if self.checksums is not None:
            self.checksums[indices] = [self._checksum(row) for row in indices]
        if self.written is not None:
            self.written[indices] = True

    def is_intact(self, row: int) -> bool:
        """Returns whether an example's values are those that were written."""
        return self._checksum(row) == self.checksums[row]

    def read(self, indices: np.ndarray) -> list[np.ndarray]:
        """Returns one dense array `[batch, …]` for each column.

        Args:
            indices: int64 `[batch]`, the indices of the examples.

        Raises:
            TrainingError: A file has changed since the values were written.
        """
        # Checked before the copy: zlib releases Python's lock while the disk is read.
        for row in indices if self.checksums is not None else ():
            if not self.is_intact(row):
                raise TrainingError(
                    f"The cached activations of example {row:,} in {self.folder} are "
                    "damaged. Delete that folder; fit(…, resume=True) recomputes them."
                )
        pairs = zip(self.columns, self.arrays, strict=True)
        return [self._batch(column, array, indices) for column, array in pairs]

    def gather(self, indices: tf.Tensor) -> Any:
        """Returns a nest of dense tensors `[batch, …]`, also inside a graph.

        Args:
            indices: int64 `[batch]`, the indices of the examples.
        """
        specs = [
            tf.TensorSpec([None, *self._batch_shape(c)], c.read_as or c.dtype)
            for c in self.columns
        ]
        return gather_in_python(self.read, indices, specs, self.structure)

    def digest(self) -> str:
        """Raises an error, since cached activations are never cached once more."""
        raise NotImplementedError

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """int64 `[count + 1]`: where the tokens of each text begin and end."""
        return np.concatenate([[0], np.cumsum(self.lengths.each, dtype=np.int64)])

    def _stored(self, column: Column, array: np.ndarray, row: int) -> np.ndarray:
        """Returns a view of one example's values, or tokens."""
        first, end = self._starts[row : row + 2] if column.varies else (row, row + 1)
        return array[first:end]

    def _checksum(self, row: int) -> int:
        checksum = 0
        for column, array in zip(self.columns, self.arrays, strict=True):
            # A view as bytes, since NumPy has no buffers of bfloat16.
            data = self._stored(column, array, row).reshape(-1).view(np.uint8)
            checksum = zlib.crc32(data, checksum)
        return checksum

    def _batch(
        self, column: Column, array: np.ndarray, indices: np.ndarray
    ) -> np.ndarray:
        dtype = column.read_as or column.dtype
        if not column.varies:
            return array[indices].astype(dtype, copy=False)
        longest = int(np.max(self.lengths.each[indices], initial=0))
        shape = (len(indices), int(self.lengths.padded_length(longest)), *column.shape)
        batch = np.full(shape, column.missing, dtype)
        for padded, row in zip(batch, indices, strict=True):
            stored = self._stored(column, array, row)
            padded[: len(stored)] = stored
        return batch

    def _batch_shape(self, column: Column) -> list[int | None]:
        if not column.varies:
            return list(column.shape)
        # The length is static if the shortest and the longest batch are padded alike.
        longest = int(self.lengths.each.max())
        padded = {int(self.lengths.padded_length(length)) for length in (1, longest)}
        return [padded.pop() if len(padded) == 1 else None, *column.shape]
