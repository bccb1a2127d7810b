"""The feed of single examples, such as those of `Splits`: preprocessed in every epoch.

Tested in tests/training/feeds/test_feeds.py.
"""

import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...data.examples import buffer_size, examples_of, untuned
from ...errors import DataError
from ...progress import progress
from .feed import Feed, Options, WorkerPart, worker_arguments
from .rows_feed import RowsFeed

_CHUNK = 1024  # examples that are read together


class SplitsFeed(Feed):
    """A feed of single examples, read by their index or as a stream.

    Args:
        dataset: Elements `(raw, label, weight)`, not batched; the weight may be ().
        options: How they become batches.
        may_differ: Whether it is a stream whose examples may differ between epochs.
        labels: All labels, if they are in memory.
    """

    repeats = True

    def __init__(
        self,
        dataset: tf.data.Dataset,
        options: Options,
        *,
        may_differ: bool,
        labels: np.ndarray | None = None,
    ):
        count = int(dataset.cardinality())
        if count == 0:
            raise DataError("The dataset has no examples.")
        self.dataset, self.options = dataset, options
        self.batch_size = options.batch_size
        if count > 0:
            self.examples = count
            self.steps = math.ceil(count / options.batch_size)
        elif count == tf.data.INFINITE_CARDINALITY:
            self.steps = math.inf
        self.shuffle_buffer = buffer_size(dataset, options.preprocess)
        if may_differ:
            self.stream_buffer = self.shuffle_buffer if options.shuffle else 0
        examples = examples_of(dataset)
        self._labels = labels if examples is None else examples.labels

    def batches(
        self, epoch: int | None, *, skip: int = 0, part: WorkerPart | None = None
    ) -> tf.data.Dataset:
        return data.batches(
            self.dataset,
            self.options.preprocess,
            batch_size=self.options.batch_size,
            shuffle=self.options.shuffle and epoch is not None,
            seed=self.options.seed,
            epoch=epoch or 0,
            skip=skip,
            **worker_arguments(part),
        )

    def with_inputs(self, rows, labels, weights, *, views=1) -> RowsFeed:
        how = {"shuffle_buffer": self.shuffle_buffer, "views": views}
        return RowsFeed(rows, labels, weights, self.options, **how)

    def labels_and_weights(self) -> tuple[Any, Any]:
        rest = self.dataset.map(lambda raw, *rest: rest).batch(_CHUNK)
        chunks = list(untuned(rest).as_numpy_iterator())
        return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *chunks)

    def known_labels(self) -> Any:
        return self._labels

    def digest(self) -> str:
        result = hashlib.sha256(repr(self.options.preprocess).encode())
        for raw, *_ in progress(
            untuned(self.dataset.prefetch(_CHUNK)),
            total=int(self.dataset.cardinality()),
            what="reading the data",
            verbose=self.options.verbose,
        ):
            for tensor in tf.nest.flatten(raw):
                value = tensor.numpy()
                content = value if isinstance(value, bytes) else value.tobytes()
                result.update(len(content).to_bytes(8, "little") + content)
        return result.hexdigest()
