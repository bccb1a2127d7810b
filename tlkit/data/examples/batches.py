"""The batches of a split for one epoch."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...errors import DataError
from ..images.decoder import rare_formats_in_python
from .example_order import WINDOW, Order, mixed_seed, order
from .random_access import examples_of, read_order
from .splits import is_integer
from .tf_data import parallel_map, shuffled, untuned

_BUFFER_BYTES = 256 * 2**20
# Estimated sizes of one string: an encoded image, and a text.
_IMAGE_BYTES = 128 * 2**10
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
    """Returns the batches of one split for one epoch.

    The order depends on `seed` and `epoch` alone, not on TensorFlow's global seed. So
    every iteration over the result, and every run, has the same batches.

    Args:
        dataset: Elements `(raw, label, …)`, not batched. The parts after `raw` are
            batched and passed on.
        preprocess: Turns raw values into the model's inputs. If its attribute
            `per_example` is true, it takes one raw value: images, whose sizes differ,
            are decoded and resized one by one. Otherwise it takes a batch of them:
            texts are tokenized and padded together. `None` passes raw values on.
        batch_size: Examples in a batch, at least 1.
        shuffle: Whether to shuffle: a split with random access as a whole, a stream
            within a buffer of up to 256 MiB.
        seed: Not negative.
        epoch: Not negative. Every epoch has its own order.
        drop_remainder: Whether to leave out a smaller last batch, as a TPU requires.
        similar_lengths: Whether shuffled texts of similar lengths come into one batch,
            which saves padding. Texts are sorted in windows of 32 batches, and the
            batches of a window are shuffled.
        skip: How many batches to leave out at the beginning, without decoding them.
        workers: How many processes read a part of each batch; `batch_size` must be a
            multiple of it.
        worker: The index of this process, from 0. It reads only its part of each batch.
        fill: Pads the data to a multiple of this number, by repeating its first
            examples. Elements then have one more part: float32, 0 for padding examples
            and 1 for the others. If `fill` is a multiple of `workers`, all workers have
            equally many batches.

    Returns:
        A dataset of `(inputs, labels, …)` with a batch axis in front. A dataset that
        decodes images works in this process only: for rare formats it calls Python.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    splits = tlkit.data.arrays(np.zeros((50, 4)), [0, 1] * 25)
    batches = tlkit.data.batches(splits.train, None, batch_size=32)
    [len(labels) for inputs, labels in batches]  # [32, 8]
    ```
    """
    if not is_integer(batch_size):
        raise DataError(
            f"batch_size must be an integer of 1 or more; got {batch_size!r}."
        )
    if workers < 1 or batch_size % workers:
        raise DataError(
            f"batch_size must be a multiple of the {workers} workers; got {batch_size}."
        )
    local_size = batch_size // workers
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
            # Shuffled before decoding, since an image takes ten times as much memory as
            # its file, and before tokenizing, which takes a whole batch.
            buffer = buffer_size(dataset, preprocess)
            dataset = shuffled(dataset, buffer, mixed_seed(seed, epoch))
        if grouped:
            dataset = _by_length(dataset, batch_size * WINDOW)
        if fill is not None:
            dataset = _padded(dataset, first, fill)
        if workers > 1:
            # All workers have the same order, so their shards do not overlap.
            dataset = dataset.shard(workers, worker)
        if not grouped:
            dataset = dataset.skip(skip * local_size)
    if per_example:
        with rare_formats_in_python():
            dataset = _map_first(dataset, preprocess)
    dataset = dataset.batch(local_size, drop_remainder=drop_remainder)
    if grouped:
        dataset = shuffled(dataset, WINDOW, mixed_seed(seed, epoch)).skip(skip)
    if for_tokens:
        dataset = _map_first(dataset, preprocess, batched=True)
    return untuned(dataset.prefetch(tf.data.AUTOTUNE))


def _padded(
    dataset: tf.data.Dataset, first: tf.data.Dataset, multiple: int
) -> tf.data.Dataset:
    """Pads a dataset to a multiple of `multiple` elements with those of `first`.

    Each element gets one more part, float32: 0 for padding, 1 for the others.
    """
    count = int(dataset.cardinality())
    if count < 0:
        raise DataError(
            "A dataset of unknown length cannot be padded for several workers. Type: "
            "dataset.apply(tf.data.experimental.assert_cardinality(n))"
        )
    marked = lambda value: lambda *parts: (*parts, tf.constant(value))
    dataset = dataset.map(marked(1.0))
    padding = -count % multiple
    if not padding:
        return dataset
    return dataset.concatenate(first.repeat().take(padding).map(marked(0.0)))


def _holds_strings(dataset: tf.data.Dataset) -> bool:
    spec = dataset.element_spec
    raw = spec[0] if isinstance(spec, tuple) else spec
    return isinstance(raw, tf.TensorSpec) and raw.dtype == tf.string


def _by_length(dataset: tf.data.Dataset, window: int) -> tf.data.Dataset:
    """Sorts texts by their lengths within each run of `window` examples."""

    def sort(raws, *rest):
        order = tf.argsort(tf.strings.length(raws), stable=True)
        gather = lambda tensor: tf.gather(tensor, order)
        return tf.nest.map_structure(gather, (raws, *rest))

    count = dataset.cardinality()
    dataset = dataset.batch(window).map(sort).unbatch()
    if count < 0:
        return dataset
    # `unbatch` loses the cardinality.
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _map_first(
    dataset: tf.data.Dataset, function: Callable[[Any], Any], *, batched: bool = False
) -> tf.data.Dataset:
    """Applies a function to the first part of every element."""
    is_ours = type(function).__module__.partition(".")[0] == "tlkit"
    of_first = lambda raw, *rest: (function(raw), *rest)
    return parallel_map(dataset, of_first, batched=batched, autograph=not is_ours)


def buffer_size(dataset: tf.data.Dataset, preprocess: Callable | None) -> int:
    """Computes how many examples `batches` shuffles at a time.

    These are all examples of a split with random access, and as many examples of a
    stream as fit into 256 MiB.
    """
    examples = examples_of(dataset)
    if examples is not None:
        return len(examples)  # only their indices are in memory
    per_example = bool(getattr(preprocess, "per_example", False))
    spec = dataset.element_spec
    raw = spec[0] if isinstance(spec, tuple) else spec
    each = _IMAGE_BYTES if per_example else _TEXT_BYTES
    if isinstance(raw, tf.TensorSpec) and raw.dtype != tf.string:
        known = raw.shape.rank is not None and raw.shape.num_elements()
        each = raw.dtype.size * (known or _IMAGE_BYTES)
    size = max(1, math.floor(_BUFFER_BYTES / each))
    cardinality = int(dataset.cardinality())
    return min(size, cardinality) if cardinality > 0 else size
