"""Rows with random access: arrays of numbers, strings or tokens."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

# Bytes. Copying more into tensors takes longer than calling Python for every batch.
_COPY_LIMIT = 2**26
_CHUNK = 2**26  # bytes


class Rows(Protocol):
    """Examples that can be read by index, each with the same nest of values."""

    @property
    def count(self) -> int:
        """The number of rows."""

    def gather(self, indices: tf.Tensor) -> Any:
        """Returns the rows at some indices, eagerly or in a graph.

        Args:
            indices: int64 `[batch]`.

        Returns:
            A nest of dense tensors `[batch, …]`.
        """

    def digest(self) -> str:
        """Computes a digest of all values, in hexadecimal."""


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The lengths of rows that differ in length, such as texts.

    Attributes:
        each: int64 `[count]`.
        padded_length: Returns the length to which a batch is padded, from the length of
            its longest row. It has few results, since a model is compiled for each.
        missing: The padding value of each column.
    """

    each: np.ndarray
    padded_length: Callable[[Any], Any]
    missing: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TensorRows:
    """Rows that are held as tensors, on the CPU.

    Attributes:
        columns: A nest of tensors `[count, …]`; with lengths, of `tf.RaggedTensor`
            `[count, (length), …]`.
        lengths: The lengths of the rows, if they differ.
    """

    columns: Any
    lengths: Lengths | None = None

    @property
    def count(self) -> int:
        if self.lengths is not None:
            return len(self.lengths.each)
        return len(tf.nest.flatten(self.columns)[0])

    def gather(self, indices: tf.Tensor) -> Any:
        columns = [tf.gather(column, indices) for column in _flat(self.columns)]
        if self.lengths is not None:
            longest = tf.cast(tf.reduce_max(columns[0].row_lengths()), tf.int32)
            tokens = self.lengths.padded_length(longest)
            pairs = zip(columns, self.lengths.missing, strict=True)
            columns = [_dense(column, tokens, missing) for column, missing in pairs]
        return tf.nest.pack_sequence_as(self.columns, columns, expand_composites=False)

    def digest(self) -> str:
        result = hashlib.sha256()
        for tensor in tf.nest.flatten(self.columns, expand_composites=True):
            result.update(f"{tensor.dtype.name} {tensor.shape}".encode())
            if tensor.dtype == tf.string:
                result.update(repr(tensor.numpy().tolist()).encode())
            else:
                result.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return result.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of large arrays of numbers, without a copy into tensors.

    Attributes:
        columns: A nest of arrays `[count, …]`.
    """

    columns: Any

    @property
    def count(self) -> int:
        return len(_flat(self.columns)[0])

    def gather(self, indices: tf.Tensor) -> Any:
        arrays = _flat(self.columns)
        read = lambda indices: [array.take(indices, axis=0) for array in arrays]
        specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays]
        return gather_in_python(read, indices, specs, self.columns)

    def digest(self) -> str:
        # Equal to the digest of `TensorRows` with the same values.
        result = hashlib.sha256()
        for array in _flat(self.columns):
            result.update(f"{array.dtype.name} {array.shape}".encode())
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for start in range(0, len(content), _CHUNK):  # Ctrl-C works between chunks
                result.update(content[start : start + _CHUNK])
        return result.hexdigest()


def gather_in_python(
    read: Callable[[np.ndarray], list[np.ndarray]],
    indices: tf.Tensor,
    specs: Sequence[tf.TensorSpec],
    structure: Any,
) -> Any:
    """Returns the rows that a Python function reads, also in a graph.

    Args:
        read: Returns the columns, each `[batch, …]`, of the rows at some indices.
        indices: int64 `[batch]`.
        specs: The specs of the columns.
        structure: The nest that the columns are packed into, in flattened order.
    """
    dtypes = [spec.dtype for spec in specs]
    # Flattened, since in eager mode a list of one array is returned as that array.
    columns = _flat(tf.numpy_function(read, [indices], dtypes, stateful=False))
    for spec, column in zip(specs, columns, strict=True):
        column.set_shape(spec.shape)
    return tf.nest.pack_sequence_as(structure, columns)


def held_rows(columns: Any) -> TensorRows | ArrayRows:
    """Returns rows of a nest of arrays, without a copy if they are large."""
    arrays = _flat(columns)
    numbers = all(array.dtype.kind in "biuf" for array in arrays)
    if numbers and sum(array.nbytes for array in arrays) >= _COPY_LIMIT:
        return ArrayRows(columns)
    return tensor_rows(columns)


def tensor_rows(columns: Any, lengths: Lengths | None = None) -> TensorRows:
    """Returns rows of a nest of arrays or ragged tensors, as tensors."""
    with tf.device("CPU"):
        tensors = [
            tf.convert_to_tensor(c) if isinstance(c, np.ndarray) else c
            for c in _flat(columns)
        ]
    return TensorRows(tf.nest.pack_sequence_as(columns, tensors), lengths)


def _flat(columns: Any) -> Sequence:
    return tf.nest.flatten(columns, expand_composites=False)


def _dense(ragged: tf.RaggedTensor, tokens: tf.Tensor | int, missing) -> tf.Tensor:
    inner = ragged.flat_values.shape[1:]
    sizes = [-1, tokens, *inner]
    shape = tf.stack([tf.cast(size, tf.int64) for size in sizes])
    dense = ragged.to_tensor(tf.cast(missing, ragged.dtype), shape=shape)
    known = tokens if isinstance(tokens, int) else None
    return tf.ensure_shape(dense, [None, known, *inner])
