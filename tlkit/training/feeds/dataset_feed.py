"""The feed of a user's batched `tf.data.Dataset`.

Tested in tests/training/feeds/test_feeds.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from ...data.examples import parallel_map, untuned
from ...errors import DataError
from .feed import Feed, Options, WorkerPart


class DatasetFeed(Feed):
    """A feed of a dataset's batches, in the dataset's order.

    The dataset may shuffle or augment, so examples may differ between epochs.

    Args:
        dataset: Elements `(inputs, labels)` or `(inputs, labels, weights)`, batched.
        options: How texts are tokenized.

    Raises:
        DataError: The dataset is empty, or its elements have another form.
    """

    def __init__(self, dataset: tf.data.Dataset, options: Options):
        self.options = options
        steps = int(dataset.cardinality())
        if steps == 0:
            raise DataError("The dataset has no batches.")
        special = {
            tf.data.INFINITE_CARDINALITY: math.inf,
            tf.data.UNKNOWN_CARDINALITY: None,
        }
        self.steps = special.get(steps, steps)
        self.dataset = self.tokenized(dataset)

    def batches(
        self, epoch: int | None, *, skip: int = 0, part: WorkerPart | None = None
    ) -> tf.data.Dataset:
        return self.rows_of_worker(self.dataset.skip(skip), part)

    def repeated(self) -> DatasetFeed:
        """Returns a feed that begins again at the end of the dataset."""
        feed = DatasetFeed.__new__(DatasetFeed)
        feed.options, feed.steps, feed.notes = self.options, math.inf, self.notes
        feed.dataset = self.dataset.repeat()
        return feed

    def tokenized(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the dataset as `(inputs, labels, weights)`, with texts tokenized."""
        dataset = untuned(dataset).map(as_triple(dataset.element_spec, self.options))
        inputs = dataset.element_spec[0]
        is_text = isinstance(inputs, tf.TensorSpec) and inputs.dtype == tf.string
        preprocess = self.options.preprocess
        if preprocess is not None and is_text:
            dataset = parallel_map(
                dataset,
                lambda texts, *rest: (preprocess.batch(texts), *rest),
                batched=True,
            )
        return untuned(dataset)

    def rows_of_worker(
        self, dataset: tf.data.Dataset, part: WorkerPart | None
    ) -> tf.data.Dataset:
        """Returns one worker's rows of each batch; each worker reads all batches."""
        if part is None:
            return dataset

        def rows(*batch):
            padded = pad_batch(batch, part.replicas)
            return tf.nest.map_structure(
                lambda tensor: tensor[part.worker :: part.workers], padded
            )

        return dataset.map(rows)


def as_triple(spec: tuple, options: Options) -> Callable[..., tuple]:
    """Returns a function that converts elements to `(inputs, labels, weights)`.

    Args:
        spec: The specs of the elements.
        options: The feed's options.

    Raises:
        DataError: The elements have another form.
    """
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise DataError(
            "The elements of the dataset must be (inputs, labels) or (inputs, labels, "
            f"weights). They are: {spec}."
        )
    labels, weights = spec[1], spec[2] if len(spec) == 3 else ()
    one_for_all = tf.nest.is_nested(labels) and not tf.nest.is_nested(weights)
    if tf.nest.is_nested(weights) and weights != ():
        try:
            tf.nest.assert_same_structure(labels, weights)
        except (TypeError, ValueError):
            raise DataError(
                "The weights of several outputs must have the structure of the labels: "
                f"{labels}. They are: {weights}."
            ) from None

    as_numbers = _labels_as_numbers(options)

    def triple(inputs, labels, weights=()):
        cast = lambda weight: tf.cast(weight, tf.float32)
        weights = tf.nest.map_structure(cast, weights)
        if one_for_all:
            weights = tf.nest.map_structure(lambda _: weights, labels)
        return inputs, tf.nest.map_structure(as_numbers, labels), weights

    return triple


def _labels_as_numbers(options: Options) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that converts the labels for a classifier of tlkit.

    One-hot integers and booleans `[…, classes]` become float32; other booleans become
    int32 indices.
    """

    def convert(labels):
        if options.classes is None or labels.dtype.is_floating:
            return labels
        rank = labels.shape.rank
        if rank and labels.shape[-1] == options.classes > 1 and rank > 1:
            return tf.cast(labels, tf.float32)
        return tf.cast(labels, tf.int32) if labels.dtype == tf.bool else labels

    return convert


def pad_batch(batch: tuple, multiple: int | tf.Tensor) -> tuple:
    """Pads a batch to a multiple of `multiple` rows, by repeating rows.

    Returns:
        The parts of the batch, and float32 `[rows]`: 0 for padding rows, 1 for others.
    """
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    rows = tf.range(-(-count // multiple) * multiple)
    batch = tf.nest.map_structure(lambda t: tf.gather(t, rows % count), batch)
    return (*batch, tf.cast(rows < count, tf.float32))
