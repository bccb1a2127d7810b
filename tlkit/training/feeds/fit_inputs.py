"""What `fit` takes, as one thing: batches for every epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...data.examples import buffer_size, map_with_access, parallel_map, untuned
from ...errors import DataError
from ...progress import progress
from .array_rows import ArrayRows, held_rows
from .augmented import augmented
from .feed import Feed, Options, Share, rows_feed, shared_out
from .token_batches import tokenized

_CHUNK = 1024  # examples that are read together
_TOGETHER = 16  # likewise, of large arrays


def make_feed(x: Any, y: Any, weights: Any, options: Options) -> Feed:
    """A feed of whatever Keras's `fit` takes, or of one split.

    Args:
        x: A split (a dataset that is not batched), a batched dataset of `(inputs,
            labels)` or `(inputs, labels, weights)`, arrays, or texts.
        y: The labels of arrays and texts: indices, names, one-hot rows or numbers.
        weights: `[n]` weights of the examples of arrays and texts, or `None`.
        options: How they become batches.

    Returns:
        The feed.

    Raises:
        DataError: It is none of these, or the lengths differ.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None or weights is not None:
            raise DataError(
                "A dataset brings its own labels and weights: its elements are "
                "(inputs, labels) or (inputs, labels, weights). Leave y out."
            )
        return dataset_feed(x, options)
    if y is None:
        raise DataError(
            "y is missing: give the labels of the examples in x, or tlkit.data.Splits "
            f"or a tf.data.Dataset that brings them. Received: x of {_kind(x)}."
        )
    return arrays_feed(x, y, weights, options)


def dataset_feed(dataset: tf.data.Dataset, options: Options) -> Feed:
    """A feed of a dataset, batched or not."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise DataError(
            "The elements of the dataset must be (inputs, labels) or (inputs, labels, "
            f"weights). They are: {spec}."
        )
    if is_split(dataset):
        return _split_feed(map_with_access(dataset, _triple), options)
    steps = int(dataset.cardinality())
    known = {tf.data.INFINITE_CARDINALITY: math.inf, tf.data.UNKNOWN_CARDINALITY: None}
    batches = untuned(dataset).map(_triple)
    raw = spec[0]
    if options.preprocess is not None and _is_strings(raw):
        batches = parallel_map(
            batches,
            lambda raws, *rest: (options.preprocess.batch(raws), *rest),
            batched=True,
        )

    def of_epoch(epoch, *, skip: int = 0, share: Share | None = None):
        rest = batches.skip(skip)
        return rest if share is None else rest.map(lambda *b: _share_of(b, share))

    # It may shuffle or augment: what it gives in one epoch says nothing of the next.
    return Feed(
        of_epoch,
        known.get(steps, steps),
        None,
        repeats=False,
        with_rows=lambda *table: rows_feed(*table, options),
    )


def is_split(dataset: tf.data.Dataset) -> bool:
    """Whether a dataset is not batched, as those of `tlkit.data.Splits` are."""
    labels = dataset.element_spec[1]
    return isinstance(labels, tf.TensorSpec) and labels.shape.rank == 0


def arrays_feed(x: Any, y: Any, weights: Any, options: Options) -> Feed:
    """A feed of arrays or texts in memory."""
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
        return rows_feed(held_rows(x), y, weights, options)
    return _split_feed(_slices((x, y, weights)), options)


def _slices(columns: Any) -> tf.data.Dataset:
    """The examples of arrays one by one."""
    rows = held_rows(columns)
    if not isinstance(rows, ArrayRows):
        with tf.device("CPU"):
            return tf.data.Dataset.from_tensor_slices(rows.columns)
    places = tf.data.Dataset.range(rows.count).batch(_TOGETHER)
    examples = parallel_map(places, rows.gather).unbatch()
    # `unbatch` forgets how many there are.
    return examples.apply(tf.data.experimental.assert_cardinality(rows.count))


def _split_feed(dataset: tf.data.Dataset, options: Options) -> Feed:
    count = int(dataset.cardinality())
    if count == 0:
        raise DataError("The dataset has no examples.")
    texts = count > 0 and options.augmentation is None
    rows = tokenized(dataset, options) if texts else None
    if rows is not None:
        return rows
    known = count if count >= 0 else None
    steps = None if known is None else math.ceil(known / options.batch_size)
    if count == tf.data.INFINITE_CARDINALITY:
        steps = math.inf

    def batches(epoch: int | None, *, skip: int = 0, share: Share | None = None):
        return data.batches(
            dataset,
            options.preprocess,
            batch_size=options.batch_size,
            shuffle=epoch is not None,
            seed=options.seed,
            epoch=epoch or 0,
            skip=skip,
            **shared_out(share),
        )

    buffer = buffer_size(dataset, options.preprocess)
    feed = Feed(
        batches,
        steps,
        known,
        repeats=True,
        batch_size=options.batch_size,
        with_rows=lambda *table: rows_feed(*table, options, buffer=buffer),
        marks=lambda: _marks(dataset),
        digest=lambda: _digest(dataset, options),
    )
    return feed if options.augmentation is None else augmented(dataset, feed, options)


def _marks(dataset: tf.data.Dataset) -> tuple[Any, Any]:
    marks = dataset.map(lambda _, *marks: marks).batch(_CHUNK)
    parts = list(untuned(marks).as_numpy_iterator())
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _digest(dataset: tf.data.Dataset, options: Options) -> str:
    found = hashlib.sha256(repr(options.preprocess).encode())
    for raw, *_ in progress(
        untuned(dataset.prefetch(_CHUNK)),
        total=int(dataset.cardinality()),
        what="reading the data",
        verbose=options.verbose,
    ):
        for part in tf.nest.flatten(raw):
            value = part.numpy()
            data = value if isinstance(value, bytes) else value.tobytes()
            found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def fill(batch, multiple: int | tf.Tensor):
    """A batch with its rows repeated up to a multiple, and which of them are real."""
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    rows = tf.range(-(-count // multiple) * multiple)
    batch = tf.nest.map_structure(lambda t: tf.gather(t, rows % count), batch)
    return (*batch, tf.cast(rows < count, tf.float32))


def _share_of(batch, share: Share):
    # Every worker reads all of a dataset of the user's own, and keeps its rows.
    filled = fill(batch, share.replicas)
    return tf.nest.map_structure(lambda t: t[share.worker :: share.workers], filled)


def _triple(inputs, labels, weights=None):
    if weights is None:
        return inputs, labels, ()
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank == 2 and weights.shape[-1] == 1:  # a column
        weights = weights[:, 0]
    return inputs, labels, weights


def count_steps(feed: Feed) -> Feed:
    """The same feed, with the number of its batches known."""
    if feed.steps is not None:
        return feed
    counted = feed.batches(None).reduce(np.int64(0), lambda n, *_: n + 1)
    if int(counted) == 0:
        raise DataError("The dataset has no batches.")
    return dataclasses.replace(feed, steps=int(counted))


# === Arrays ===


def _array(x: Any):
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


def _is_strings(spec) -> bool:
    return isinstance(spec, tf.TensorSpec) and spec.dtype == tf.string


def _kind(value: Any) -> str:
    return type(value).__name__
