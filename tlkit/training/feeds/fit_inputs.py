"""Creates the feed for each kind of input of `fit` and `evaluate`.

Tested in tests/training/feeds/test_feeds.py.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from ...data.examples import (
    is_repeatable,
    map_examples,
    parallel_map,
    take_examples,
)
from ...errors import DataError
from .array_rows import ArrayRows, held_rows
from .augmented_feed import AugmentedFeed, refuse_augmentation
from .dataset_feed import DatasetFeed, as_triple
from .feed import CountedFeed, Feed, Options, check_enough
from .input_arrays import Columns, columns_of
from .python_batches import makes_batches, python_feed
from .rows_feed import RowsFeed
from .splits_feed import SplitsFeed
from .token_rows import tokenized_feed

_CHUNK = 16  # examples of large arrays that are read together


def make_feed(
    x: Any,
    y: Any,
    weights: Any,
    options: Options,
    *,
    steps: int | None = None,
    once: bool = False,
) -> Feed:
    """Returns a feed of what Keras's `fit` accepts, or of one split.

    Args:
        x: A split (a dataset that is not batched); a batched dataset, generator,
            `PyDataset` or data loader of `(inputs, labels)` or `(inputs, labels,
            weights)`; arrays, tables and nests of them; or texts.
        y: The labels of arrays and texts: indices, names, one-hot rows or numbers.
        weights: Weights of the examples of arrays and texts, `[n]`, `[n, steps]` or a
            nest of them like `y`; or `None`.
        options: How they become batches.
        steps: The number of batches to use, the first ones. Default: all.
        once: Whether the batches are read only once, so that a generator is allowed.

    Raises:
        DataError: `x` is none of these, or the lengths differ.
    """
    if brings_labels(x):
        if y is not None or weights is not None:
            raise DataError(
                f"A {type(x).__name__} brings its own labels and weights: its elements "
                "are (inputs, labels) or (inputs, labels, weights). Leave "
                f"{'y' if y is not None else 'sample_weight'} out."
            )
        if isinstance(x, tf.data.Dataset):
            return _of_dataset(x, options, steps)
        if isinstance(x, tf.distribute.DistributedDataset):
            raise DataError(
                "x is distributed already, and fit does that itself. Give the dataset "
                "from which it was made."
            )
        if hasattr(x, "__next__") and steps is None and not once:
            raise DataError(
                f"A {type(x).__name__} has no length and can be read only once. Give a "
                "tf.data.Dataset, a keras.utils.PyDataset or arrays."
            )
        refuse_augmentation(options)
        return python_feed(x, options, steps=steps)
    columns = columns_of(x, y, weights, options)
    return feed_of_columns(columns, options, steps=steps)


def brings_labels(x: Any) -> bool:
    """Returns whether an input contains its labels, so that `y` must be left out."""
    return isinstance(x, tf.data.Dataset) or makes_batches(x)


def feed_of_columns(
    columns: Columns, options: Options, *, steps: int | None = None
) -> Feed:
    """Returns a feed of arrays; of their first `steps` batches, if that is given.

    Raises:
        DataError: There are fewer batches.
    """
    if steps is not None:
        check_enough(steps, math.ceil(len(columns) / options.batch_size))
        columns = columns.rows(0, steps * options.batch_size)
    parts = (columns.inputs, columns.labels, columns.weights)
    if columns.raw:
        return _of_examples(_slices(parts), options, labels=columns.labels)
    refuse_augmentation(options)
    return RowsFeed(held_rows(parts[0]), *parts[1:], options)


def count_steps(feed: Feed) -> Feed:
    """Returns the feed with its number of batches; counts them if it is not known."""
    if feed.steps is not None:
        return feed
    # Counted in Python, where Ctrl-C takes effect between two batches.
    steps = sum(1 for _ in feed.batches(None).map(lambda *_: 0))
    if steps == 0:
        raise DataError("The dataset has no batches.")
    return CountedFeed(feed, steps)


def input_notes(
    train: Feed, validation: Feed | None, *, caches: bool = True
) -> list[str]:
    """Returns lines that name the limits of streams and batched datasets.

    Args:
        train: The training examples.
        validation: The validation examples.
        caches: Whether activations would be cached for other data.
    """
    notes = [*train.notes, *(validation.notes if validation is not None else ())]
    if train.stream_buffer is not None:
        order = f"shuffled within a buffer of {train.stream_buffer:,}"
        notes.append(
            "The training examples are read as a stream: they are "
            f"{order if train.stream_buffer else 'in their order'}, and "
            'cache="auto" caches nothing. With splits of tlkit.data as they are, all '
            "are shuffled and activations are cached."
        )
    elif not train.repeats and not train.has_views and not train.examples and caches:
        notes.append(
            "The training examples may differ between epochs, since they are batches "
            "of your own, so no activations are cached. Give splits of tlkit.data or "
            "arrays."
        )
    if not train.repeats or validation is None or not caches:
        return notes
    if not validation.repeats:
        notes.append(
            "The validation examples may differ between epochs, since they are a "
            "batched dataset, so no activations are cached. Give a split or arrays."
        )
    elif validation.stream_buffer is not None and train.stream_buffer is None:
        notes.append(
            "The validation examples may differ between epochs, since they are read as "
            'a stream, so cache="auto" caches nothing. Give a split of tlkit.data as '
            'it is, or arrays; or type cache="memory" if they are the same.'
        )
    return notes


def _of_dataset(dataset: tf.data.Dataset, options: Options, steps: int | None) -> Feed:
    triple = as_triple(dataset.element_spec, options)
    if not _is_split(dataset):
        refuse_augmentation(options)
        if steps is not None:
            check_enough(steps, int(dataset.cardinality()))
            dataset = dataset.take(steps)
        return DatasetFeed(dataset, options)
    if steps is not None:
        count = int(dataset.cardinality())
        check_enough(steps, -(-count // options.batch_size) if count >= 0 else count)
        dataset = take_examples(dataset, steps * options.batch_size)
    may_differ = not is_repeatable(dataset)
    return _of_examples(map_examples(dataset, triple), options, may_differ=may_differ)


def _is_split(dataset: tf.data.Dataset) -> bool:
    """Returns whether a dataset is not batched, like those of `tlkit.data.Splits`."""
    labels = dataset.element_spec[1]
    return isinstance(labels, tf.TensorSpec) and labels.shape.rank == 0


def _of_examples(
    dataset: tf.data.Dataset,
    options: Options,
    *,
    may_differ: bool = False,
    labels: np.ndarray | None = None,
) -> Feed:
    """Returns a feed of `(raw, label, weight)`, with texts tokenized in memory."""
    if options.augmentation is None and not may_differ:
        feed = tokenized_feed(dataset, options)
        if feed is not None:
            return feed
    feed = SplitsFeed(dataset, options, may_differ=may_differ, labels=labels)
    return feed if options.augmentation is None else AugmentedFeed(feed)


def _slices(columns: Any) -> tf.data.Dataset:
    """Returns a dataset of the examples of arrays, one by one."""
    rows = held_rows(columns)
    if not isinstance(rows, ArrayRows):
        with tf.device("CPU"):
            return tf.data.Dataset.from_tensor_slices(rows.columns)
    indices = tf.data.Dataset.range(rows.count).batch(_CHUNK)
    examples = parallel_map(indices, rows.gather).unbatch()
    # `unbatch` loses the cardinality, so it is set again.
    return examples.apply(tf.data.experimental.assert_cardinality(rows.count))
