"""The feed of rows with random access: arrays, tokens, cached activations.

Tested in tests/training/feeds/test_array_rows.py and test_feeds.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ...data.augmentation import view_number
from ...data.examples import order, parallel_map, untuned
from .array_rows import Lengths, Rows, tensor_rows
from .feed import Feed, Options, WorkerPart, worker_arguments


class RowsFeed(Feed):
    """A feed of rows with random access.

    Args:
        rows: The inputs.
        labels: The labels of the rows, as an array or a nest of arrays.
        weights: The weights of the rows, or ().
        options: How they become batches.
        lengths: The lengths of the texts, or of the texts that cached activations were
            computed from. Texts of similar lengths are batched together.
        shuffle_buffer: Shuffles as with a buffer of that size. Default: all rows.
        views: How many views of each example the rows hold, one after the other; the
            epochs take turns with them.
    """

    repeats = True

    def __init__(
        self,
        rows: Rows,
        labels: Any,
        weights: Any,
        options: Options,
        *,
        lengths: Lengths | None = None,
        shuffle_buffer: int | None = None,
        views: int = 1,
    ):
        self.rows, self.options, self.lengths = rows, options, lengths
        self.shuffle_buffer, self.views = shuffle_buffer, views
        self.labels = tensor_rows((labels, weights))
        self.examples = rows.count // views
        self.batch_size = options.batch_size
        self.steps = math.ceil(self.examples / self.batch_size)
        # Traced once: tracing it in every epoch would take a tenth of a second.
        self._loader = functools.cache(self._make_loader)

    def batches(
        self, epoch: int | None, *, skip: int = 0, part: WorkerPart | None = None
    ) -> tf.data.Dataset:
        chosen = order(
            self.examples,
            batch_size=self.batch_size,
            shuffle=self.options.shuffle and epoch is not None,
            seed=self.options.seed,
            epoch=epoch or 0,
            buffer=self.shuffle_buffer,
            lengths=None if self.lengths is None else self.lengths.each,
            **worker_arguments(part),
        )
        columns = [chosen.rows] if part is None else [chosen.rows, chosen.present]
        columns = [column[skip:] for column in columns]
        return self._load(*columns, view=view_number(epoch or 0, self.views))

    def longest_first(self) -> tuple[np.ndarray, tf.data.Dataset]:
        indices = np.argsort(-self.lengths.each, kind="stable")
        padded = np.full(self.steps * self.batch_size, -1)
        padded[: self.examples] = indices
        return indices, self._load(padded.reshape(-1, self.batch_size))

    def with_inputs(self, rows, labels, weights, *, views=1) -> RowsFeed:
        how = {"lengths": self.lengths, "shuffle_buffer": self.shuffle_buffer}
        return RowsFeed(rows, labels, weights, self.options, views=views, **how)

    def labels_and_weights(self) -> tuple[Any, Any]:
        return tf.nest.map_structure(np.asarray, self.labels.columns)

    def known_labels(self) -> Any:
        return self.labels_and_weights()[0]

    def digest(self) -> str:
        return self.rows.digest()

    def _load(self, *columns: np.ndarray, view: int = 0) -> tf.data.Dataset:
        """Loads batches by row indices `[batches, batch_size]`, of which -1 is none."""
        with tf.device("CPU"):
            dataset = tf.data.Dataset.from_tensor_slices(columns)
        loaded = parallel_map(dataset, self._loader(view), batched=True)
        return untuned(loaded.prefetch(tf.data.AUTOTUNE))

    def _make_loader(self, view: int) -> Callable:
        def load(indices, *present):
            inside = indices >= 0
            indices, *present = (
                tf.boolean_mask(column, inside) for column in (indices, *present)
            )
            inputs = self.rows.gather(indices + view * self.examples)
            return (inputs, *self.labels.gather(indices), *present)

        return tf.function(load, autograph=False)
