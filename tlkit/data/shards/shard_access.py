"""Examples that stand in many TFRecord files, read in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from ..examples.example_order import mixed_seed
from ..examples.random_access import FRAME, Access, attach_access
from ..examples.splits import random_order
from ..examples.tf_data import deterministic, parallel_map

_TOGETHER = 8  # files that are read at a time
_BLOCK = 16  # examples that are taken from one of them in a row
_READ_AHEAD = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class ShardFiles:
    """The files of one split, and where its examples stand in them.

    Attributes:
        paths: The files.
        counts: int64 `[files]`, how many examples each has, at least one.
        lengths: int64 `[n]`, the bytes of each record, with what frames it.
        labels: int32 `[n]`.
        parse: Makes `(raw, label)` of a record.
        check: As in `Access`.
    """

    paths: tuple[str, ...]
    counts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    check: Callable[[], None] | None = None

    def dataset(self) -> tf.data.Dataset:
        """All examples in the order in which they were written."""
        parts = [(file, 0, count) for file, count in enumerate(self.counts.tolist())]
        return attach_access(
            self._in_parts(parts, together=1),
            Access(
                self.labels,
                self.read,
                in_order=True,
                shuffled=self.shuffled,
                check=self.check,
            ),
        )

    def shuffled(
        self, *, seed: int, epoch: int, workers: int = 1, worker: int = 0
    ) -> tf.data.Dataset:
        """All examples, or a worker's share, with the files in another order.

        Several files are read at a time, some examples of each in turn, so a buffer
        behind it mixes what stands far apart. The shares of the workers have no example
        in common, differ by one example at most, and each worker reads the files that
        it needs and nothing else: how many files there are does not matter.

        Args:
            seed: Not negative.
            epoch: Not negative. Each has an order of its own.
            workers: How many share the examples.
            worker: Which of them this is, from 0.
        """
        order = random_order(len(self.paths), seed=mixed_seed(seed, epoch))
        ends = np.cumsum(self.counts[order])
        total = int(ends[-1])
        start, stop = (total * edge // workers for edge in (worker, worker + 1))
        parts = []
        for file, end in zip(order.tolist(), ends.tolist(), strict=True):
            begin = end - int(self.counts[file])
            low, high = max(start, begin), min(stop, end)
            if low < high:
                parts.append((file, low - begin, high - low))
        return self._in_parts(parts, together=_TOGETHER)

    def read(self, places: np.ndarray) -> tf.data.Dataset:
        """The examples at some places, each read for itself."""
        places = np.asarray(places, np.int64)
        files = np.repeat(np.arange(len(self.paths)), self.counts)[places]
        columns = (files, self._offsets()[places], self.lengths[places])
        names = tf.constant(self.paths)

        def one(file, offset, length):
            # With its checksum, which a bare read of those bytes would not compare.
            found = _records(names[file], offset, length).take(1)
            return self.parse(found.get_single_element())

        with tf.device("CPU:0"):
            dataset = tf.data.Dataset.from_tensor_slices(columns)
        return deterministic(parallel_map(dataset, one))

    def _in_parts(
        self, parts: list[tuple[int, int, int]], together: int
    ) -> tf.data.Dataset:
        """Examples of files, each part from one place on and so many."""
        firsts = np.cumsum(self.counts) - self.counts
        offsets = self._offsets()
        rows = [
            (self.paths[file], offsets[firsts[file] + skip], count)
            for file, skip, count in parts
        ]
        names, starts, counts = zip(*rows, strict=True) if rows else ((), (), ())
        table = tf.data.Dataset.from_tensor_slices(
            (
                tf.constant(names, tf.string, [len(rows)]),
                np.array(starts, np.int64),
                np.array(counts, np.int64),
            )
        )
        open_part = lambda name, start, count: _records(name, start, _READ_AHEAD).take(
            count
        )
        if together == 1:
            records = table.flat_map(open_part)
        else:
            records = table.interleave(
                open_part,
                cycle_length=together,
                block_length=_BLOCK,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        known = tf.data.experimental.assert_cardinality(sum(counts))
        return deterministic(parallel_map(records, self.parse).apply(known))

    def _offsets(self) -> np.ndarray:
        """int64 `[n]`, where each record begins in its file."""
        ends = np.cumsum(self.lengths)
        firsts = np.cumsum(self.counts) - self.counts
        before = (ends - self.lengths)[firsts]
        return ends - self.lengths - np.repeat(before, self.counts)


def record_lengths(contents: tf.Tensor) -> tf.Tensor:
    """int64, how many bytes records take in a file."""
    return tf.cast(tf.strings.length(contents), tf.int64) + FRAME


def _records(name: tf.Tensor, offset: tf.Tensor, buffer: tf.Tensor) -> tf.data.Dataset:
    """The records of a file from a place on."""
    # tf.data.TFRecordDataset has no argument for where to begin.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=name,
        compression_type="",
        buffer_size=tf.cast(buffer, tf.int64),
        byte_offsets=offset,
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
