"""The inputs of `fit` and `evaluate`: each kind becomes its feed.

Tested in tests/training/feeds/test_feeds.py.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from ...data.examples import (
    is_repeatable,
    map_examples,
    parallel_map,
    untuned,
)
from ...errors import DataError
from .array_rows import ArrayRows, held_rows
from .augmented_feed import AugmentedFeed
from .dataset_feed import DatasetFeed
from .feed import CountedFeed, Feed, Options
from .rows_feed import RowsFeed
from .splits_feed import SplitsFeed
from .token_rows import tokenized_feed

_CHUNK = 16  # examples of large arrays that are read together


def make_feed(x: Any, y: Any, weights: Any, options: Options) -> Feed:
    """Returns a feed of what Keras's `fit` accepts, or of one split.

    Args:
        x: A split (a dataset that is not batched), a batched dataset of `(inputs,
            labels)` or `(inputs, labels, weights)`, arrays, or texts.
        y: The labels of arrays and texts: indices, names, one-hot rows or numbers.
        weights: `[n]` weights of the examples of arrays and texts, or `None`.
        options: How they become batches.

    Raises:
        DataError: It is none of these, or the lengths differ.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None or weights is not None:
            raise DataError(
                "A dataset brings its own labels and weights: its elements are "
                "(inputs, labels) or (inputs, labels, weights). Leave y out."
            )
        return _of_dataset(x, options)
    if y is None:
        raise DataError(
            "y is missing: give the labels of the examples in x, or tlkit.data.Splits "
            "or a tf.data.Dataset that brings them. Received: x of "
            f"{type(x).__name__}."
        )
    return _of_arrays(x, y, weights, options)


def count_steps(feed: Feed) -> Feed:
    """Returns the feed with its number of batches; counts them if it is not known."""
    if feed.steps is not None:
        return feed
    steps = int(feed.batches(None).reduce(np.int64(0), lambda n, *_: n + 1))
    if steps == 0:
        raise DataError("The dataset has no batches.")
    return CountedFeed(feed, steps)


def input_notes(train: Feed, validation: Feed | None) -> list[str]:
    """Returns lines that name the limits of streams and batched datasets."""
    notes = []
    if train.stream_buffer is not None:
        notes.append(
            "The training examples are read as a stream: they are shuffled within a "
            f'buffer of {train.stream_buffer:,}, and cache="auto" caches nothing. With '
            "splits of tlkit.data as they are, all are shuffled and activations are "
            "cached."
        )
    if train.repeats and validation is not None and not validation.repeats:
        notes.append(
            "The validation examples may differ between epochs, since they are a "
            "batched dataset, so no activations are cached. Give a split or arrays."
        )
    return notes


def _of_dataset(dataset: tf.data.Dataset, options: Options) -> Feed:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise DataError(
            "The elements of the dataset must be (inputs, labels) or (inputs, labels, "
            f"weights). They are: {spec}."
        )
    if not _is_split(dataset):
        return DatasetFeed(untuned(dataset).map(_triple), options)
    may_differ = not is_repeatable(dataset)
    return _of_examples(map_examples(dataset, _triple), options, may_differ=may_differ)


def _is_split(dataset: tf.data.Dataset) -> bool:
    """Whether a dataset is not batched, as those of `tlkit.data.Splits`."""
    labels = dataset.element_spec[1]
    return isinstance(labels, tf.TensorSpec) and labels.shape.rank == 0


def _triple(inputs, labels, weights=None):
    if weights is None:
        return inputs, labels, ()
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank == 2 and weights.shape[-1] == 1:  # a column
        weights = weights[:, 0]
    return inputs, labels, weights


def _of_examples(
    dataset: tf.data.Dataset, options: Options, *, may_differ: bool = False
) -> Feed:
    """Returns a feed of `(raw, label, weight)`, with texts tokenized in memory."""
    if options.augmentation is None:
        feed = tokenized_feed(dataset, options)
        if feed is not None:
            return feed
    feed = SplitsFeed(dataset, options, may_differ=may_differ)
    return feed if options.augmentation is None else AugmentedFeed(feed)


def _of_arrays(x: Any, y: Any, weights: Any, options: Options) -> Feed:
    nested = isinstance(x, (dict, tuple))
    x = tf.nest.map_structure(_array, x) if nested else _array(x)
    y = _labels(y, options)
    weights = () if weights is None else np.asarray(weights, np.float32)
    sizes = {len(part) for part in tf.nest.flatten((x, y, weights))}
    if len(sizes) != 1:
        raise DataError(
            "x, y and the weights must have one entry for each example. Their lengths: "
            f"{', '.join(map(str, sorted(sizes)))}."
        )
    if sizes == {0}:
        raise DataError("x has no examples.")
    if options.preprocess is None or nested:
        return RowsFeed(held_rows(x), y, weights, options)
    return _of_examples(_slices((x, y, weights)), options)


def _slices(columns: Any) -> tf.data.Dataset:
    """Returns a dataset of the examples of arrays, one by one."""
    rows = held_rows(columns)
    if not isinstance(rows, ArrayRows):
        with tf.device("CPU"):
            return tf.data.Dataset.from_tensor_slices(rows.columns)
    indices = tf.data.Dataset.range(rows.count).batch(_CHUNK)
    examples = parallel_map(indices, rows.gather).unbatch()
    # `unbatch` loses the cardinality.
    return examples.apply(tf.data.experimental.assert_cardinality(rows.count))


def _array(x: Any) -> np.ndarray:
    if tf.is_tensor(x):
        return x.numpy()
    if isinstance(x, (list, tuple)) and x and isinstance(x[0], str):
        return np.asarray([text.encode() for text in x], object)
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise DataError(f"The examples in x differ in shape: {error}") from error
    if x.dtype.kind == "U":
        return np.char.encode(x, "utf-8").astype(object)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def _labels(y: Any, options: Options) -> np.ndarray:
    y = np.asarray(y)
    if y.dtype.kind in "UO" and len(y) and isinstance(y.reshape(-1)[0], str):
        if options.label_index is None:
            raise DataError(
                "y holds names of labels, but this model has none. Give indices."
            )
        return np.asarray([options.label_index(name) for name in y], np.int32)
    return y.astype(np.float32) if y.dtype == np.float64 else y
