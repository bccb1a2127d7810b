"""Splits become batches of what a model takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ..images.decoder import usual_kinds_first
from .example_order import WINDOW, Order, mixed_seed, order
from .random_access import examples_of, read_order
from .tf_data import parallel_map, shuffled, untuned

_BUFFER_BYTES = 256 * 2**20
# What one string is taken to weigh: an encoded picture, and a text.
_PICTURE_BYTES = 128 * 2**10
_TEXT_BYTES = 2 * 2**10


def batches(
    dataset: tf.data.Dataset,
    preprocess: Callable[[Any], Any] | None,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    drop_remainder: bool = False,
    similar_lengths: bool = True,
    skip: int = 0,
    workers: int = 1,
    worker: int = 0,
    fill: int | None = None,
) -> tf.data.Dataset:
    """Turns one split into batches for one epoch.

    The order depends on nothing but `seed` and `epoch`, not on TensorFlow's global seed
    either: going through the result twice gives the same batches, and a repeated run
    repeats them.

    Args:
        dataset: Elements `(raw, label, …)`, not batched. What follows `raw` is batched
            and passed on.
        preprocess: Turns raw values into the model's inputs. If its attribute
            `per_example` is true it takes one raw value (pictures, whose sizes differ,
            are decoded and resized one by one); otherwise, and without that attribute,
            a batch of them (texts are cut into tokens and padded together). `None`
            passes raw values on.
        batch_size: Examples in a batch, at least 1.
        shuffle: Whether to shuffle, with a buffer of up to some 256 MiB.
        seed: Not negative.
        epoch: Not negative. Every epoch has an order of its own.
        drop_remainder: Whether to leave out the last batch if it is smaller, as a TPU
            wants it.
        similar_lengths: Whether texts of similar lengths come into a batch together
            when they are shuffled, so that less of it is padding. Texts are sorted in
            windows of 32 batches, and the batches of a window shuffled.
        skip: How many batches to leave out at the beginning; nothing of them is
            decoded.
        workers: How many processes share each batch; `batch_size` must be a multiple.
        worker: Which of them this is, from 0. Each takes its examples of every batch
            before anything is decoded.
        fill: If given, the data is filled up to a multiple of that many examples with
            its first ones, and elements have one more part: float32, 1 for an example
            and 0 for one that only fills up. Give the workers' number, or more, so
            that all of them have as many batches.

    Returns:
        A dataset of `(inputs, labels, …)` with a batch axis in front. One that decodes
        pictures is for this process: it calls Python for the rarer kinds of them.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    for inputs, labels in tlkit.data.batches(splits.test, None, batch_size=32): ...
    ```
    """
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise DataError(
            f"batch_size must be an integer of 1 or more; got {batch_size!r}."
        )
    if workers < 1 or batch_size % workers:
        raise DataError(
            f"batch_size must be a multiple of the {workers} workers; got {batch_size}."
        )
    own_size = batch_size // workers
    per_example = bool(getattr(preprocess, "per_example", False))
    for_tokens = preprocess is not None and not per_example
    grouped = shuffle and similar_lengths and for_tokens and _holds_strings(dataset)
    examples = None if grouped else examples_of(dataset)
    if examples is not None and (shuffle or workers > 1 or skip):
        chosen = order(
            len(examples),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            buffer=buffer_size(dataset, preprocess),
            workers=workers,
            worker=worker,
            fill=fill or 1,
        )
        rest = Order(chosen.rows[skip:], chosen.present[skip:])
        dataset = read_order(examples, rest, marked=fill is not None)
    else:
        first = dataset
        if shuffle:
            # Before anything is decoded: a picture takes ten times as much memory as
            # its file, and tokens are made for one batch at a time.
            buffer = buffer_size(dataset, preprocess)
            dataset = shuffled(dataset, buffer, mixed_seed(seed, epoch))
        if grouped:
            dataset = _by_length(dataset, batch_size * WINDOW)
        if fill is not None:
            dataset = _fill_up(dataset, first, fill)
        if workers > 1:
            # The order is decided by the seed alone, so the shares do not overlap.
            dataset = dataset.shard(workers, worker)
        if not grouped:
            dataset = dataset.skip(skip * own_size)
    if per_example:
        with usual_kinds_first():
            dataset = _map_first(dataset, preprocess)
    dataset = dataset.batch(own_size, drop_remainder=drop_remainder)
    if grouped:
        dataset = shuffled(dataset, WINDOW, mixed_seed(seed, epoch)).skip(skip)
    if for_tokens:
        dataset = _map_first(dataset, preprocess, batched=True)
    return untuned(dataset.prefetch(tf.data.AUTOTUNE))


def _fill_up(
    dataset: tf.data.Dataset, first: tf.data.Dataset, multiple: int
) -> tf.data.Dataset:
    """Marks examples, and adds some of the first ones to come to a multiple."""
    count = int(dataset.cardinality())
    if count < 0:
        raise DataError("A dataset of unknown length cannot be filled up.")
    marked = lambda value: lambda *parts: (*parts, tf.constant(value))
    dataset = dataset.map(marked(1.0))
    added = -count % multiple
    if not added:
        return dataset
    return dataset.concatenate(first.repeat().take(added).map(marked(0.0)))


def _holds_strings(dataset: tf.data.Dataset) -> bool:
    spec = dataset.element_spec
    raw = spec[0] if isinstance(spec, tuple) else spec
    return isinstance(raw, tf.TensorSpec) and raw.dtype == tf.string


def _by_length(dataset: tf.data.Dataset, window: int) -> tf.data.Dataset:
    """Sorts strings by their lengths within windows of that many."""

    def sort(raws, *rest):
        order = tf.argsort(tf.strings.length(raws), stable=True)
        gather = lambda tensor: tf.gather(tensor, order)
        return tf.nest.map_structure(gather, (raws, *rest))

    count = dataset.cardinality()
    dataset = dataset.batch(window).map(sort).unbatch()
    if count < 0:
        return dataset
    # `unbatch` forgets how many there are.
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _map_first(
    dataset: tf.data.Dataset, function: Callable[[Any], Any], *, batched: bool = False
) -> tf.data.Dataset:
    """Applies a function to the first part of every element."""
    own = type(function).__module__.partition(".")[0] == __name__.partition(".")[0]
    of_first = lambda raw, *rest: (function(raw), *rest)
    return parallel_map(dataset, of_first, batched=batched, autograph=not own)


def buffer_size(dataset: tf.data.Dataset, preprocess: Callable | None) -> int:
    """How many raw examples `batches` shuffles at a time: those that fit in 256 MiB."""
    examples = examples_of(dataset)
    if examples is not None:
        return len(examples)  # indices are shuffled, not examples
    per_example = bool(getattr(preprocess, "per_example", False))
    spec = dataset.element_spec
    raw = spec[0] if isinstance(spec, tuple) else spec
    each = _PICTURE_BYTES if per_example else _TEXT_BYTES
    if isinstance(raw, tf.TensorSpec) and raw.dtype != tf.string:
        known = raw.shape.rank is not None and raw.shape.num_elements()
        each = raw.dtype.size * (known or _PICTURE_BYTES)
    size = max(1, math.floor(_BUFFER_BYTES / each))
    cardinality = int(dataset.cardinality())
    return min(size, cardinality) if cardinality > 0 else size
