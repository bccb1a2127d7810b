"""Examples with random access: numbers, tokens."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

# From here on a copy of the arrays takes longer than calls of Python for the batches.
_MANY_BYTES = 2**26


class Rows(Protocol):
    """As many examples as there are, each with the same nest of values."""

    @property
    def count(self) -> int:
        """How many there are."""

    def gather(self, places: tf.Tensor) -> Any:
        """The nest of dense tensors `[batch, …]` of some examples, in a graph too.

        Args:
            places: int64 `[batch]`.
        """

    def digest(self) -> str:
        """A digest of all values, in hexadecimal."""


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long the rows are that have no common length, texts above all.

    Attributes:
        each: int64 `[count]`.
        padded_length: Gives the length to which a batch is padded, of its longest row;
            one of a few, since what is compiled is compiled for each.
        missing: What rows are padded with, for each column.
    """

    each: np.ndarray
    padded_length: Callable[[Any], Any]
    missing: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TensorRows:
    """Rows that are held as tensors, on the CPU.

    Attributes:
        columns: A nest of tensors `[count, …]`; with lengths of `tf.RaggedTensor`
            `[count, (length), …]`.
        lengths: How long the rows are, where they have no common length.
    """

    columns: Any
    lengths: Lengths | None = None

    @property
    def count(self) -> int:
        if self.lengths is not None:
            return len(self.lengths.each)
        return len(tf.nest.flatten(self.columns)[0])

    def gather(self, places: tf.Tensor) -> Any:
        found = [tf.gather(column, places) for column in _flat(self.columns)]
        if self.lengths is not None:
            longest = tf.cast(tf.reduce_max(found[0].row_lengths()), tf.int32)
            tokens = self.lengths.padded_length(longest)
            pairs = zip(found, self.lengths.missing, strict=True)
            found = [_dense(column, tokens, missing) for column, missing in pairs]
        return tf.nest.pack_sequence_as(self.columns, found, expand_composites=False)

    def digest(self) -> str:
        found = hashlib.sha256()
        for tensor in tf.nest.flatten(self.columns, expand_composites=True):
            found.update(f"{tensor.dtype.name} {tensor.shape}".encode())
            if tensor.dtype == tf.string:
                found.update(repr(tensor.numpy().tolist()).encode())
            else:
                found.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return found.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of arrays of numbers, as they are: tensors of them would be copies.

    Attributes:
        columns: A nest of arrays `[count, …]`.
    """

    columns: Any

    @property
    def count(self) -> int:
        return len(_flat(self.columns)[0])

    def gather(self, places: tf.Tensor) -> Any:
        arrays = _flat(self.columns)
        take = lambda chosen: [array.take(chosen, axis=0) for array in arrays]
        specs = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays]
        return gather_in_python(take, places, specs, self.columns)

    def digest(self) -> str:
        # That of `TensorRows`.
        found = hashlib.sha256()
        for array in _flat(self.columns):
            found.update(f"{array.dtype.name} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def gather_in_python(
    read: Callable[[np.ndarray], list[np.ndarray]],
    places: tf.Tensor,
    specs: Sequence[tf.TensorSpec],
    structure: Any,
) -> Any:
    """What a function of Python gives of some rows, in a graph too.

    Args:
        read: Gives the columns, each `[batch, …]`, of the rows at some places.
        places: int64 `[batch]`.
        specs: Of the columns.
        structure: The nest that the columns are packed into, in flattened order.
    """
    dtypes = [spec.dtype for spec in specs]
    # Flattened, since eagerly a list of one comes back as that one.
    found = _flat(tf.numpy_function(read, [places], dtypes, stateful=False))
    for spec, tensor in zip(specs, found, strict=True):
        tensor.set_shape(spec.shape)
    return tf.nest.pack_sequence_as(structure, found)


def held_rows(columns: Any) -> TensorRows | ArrayRows:
    """Rows of a nest of arrays, in memory."""
    arrays = _flat(columns)
    numbers = all(array.dtype.kind in "biuf" for array in arrays)
    if numbers and sum(array.nbytes for array in arrays) >= _MANY_BYTES:
        return ArrayRows(columns)
    return tensor_rows(columns)


def tensor_rows(columns: Any, lengths: Lengths | None = None) -> TensorRows:
    """Rows of arrays, or of ragged tensors, as tensors."""
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
