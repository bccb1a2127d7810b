"""Examples in TFRecord files, read in any order.

Tested in tests/data/shards/test_shards.py.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..examples.random_access import Examples
from ..examples.tf_data import deterministic, parallel_map

_READ_AHEAD = 2**20  # bytes


@dataclasses.dataclass(frozen=True, eq=False)
class ShardFiles:
    """The files of one split, and the positions of its examples in them.

    Attributes:
        paths: The files.
        counts: int64 `[files]`, how many examples each file has, at least one.
        lengths: int64 `[n]`, how many bytes each record takes in its file.
        labels: int32 `[n]`, the class of each example.
        parse: Converts a record to `(raw, label)`.
    """

    paths: tuple[str, ...]
    counts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

    def examples(self) -> Examples:
        """Returns all examples, in the order in which they were written."""
        return Examples(self.labels, self._read, self._stream)

    def _stream(self) -> tf.data.Dataset:
        """Reads one file after the other."""
        records = tf.data.TFRecordDataset(list(self.paths), buffer_size=_READ_AHEAD)
        known = tf.data.experimental.assert_cardinality(len(self.labels))
        return deterministic(parallel_map(records, self.parse).apply(known))

    def _read(self, indices: np.ndarray) -> tf.data.Dataset:
        """Reads the examples at some indices, each from its position in a file."""
        indices = np.asarray(indices, np.int64)
        files = np.repeat(np.arange(len(self.paths)), self.counts)[indices]
        columns = (files, self._offsets()[indices], self.lengths[indices])
        names = tf.constant(self.paths)

        def one(file, offset, length):
            # Read as a record, so that TensorFlow compares the checksum.
            record = _records_from(names[file], offset, length).take(1)
            return self.parse(record.get_single_element())

        with tf.device("CPU:0"):
            dataset = tf.data.Dataset.from_tensor_slices(columns)
        return deterministic(parallel_map(dataset, one))

    def _offsets(self) -> np.ndarray:
        """Computes where each record begins in its file, int64 `[n]` bytes."""
        ends = np.cumsum(self.lengths)
        firsts = np.cumsum(self.counts) - self.counts
        before = (ends - self.lengths)[firsts]
        return ends - self.lengths - np.repeat(before, self.counts)


def _records_from(
    path: tf.Tensor, offset: tf.Tensor, buffer: tf.Tensor
) -> tf.data.Dataset:
    """Reads the records of a file from a byte offset on."""
    # tf.data.TFRecordDataset has no argument for the offset.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path,
        compression_type="",
        buffer_size=buffer,
        byte_offsets=offset,
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
