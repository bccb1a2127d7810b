"""What `fit` takes, as one thing: batches for every epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from .. import data
from ..errors import DataError

# Elements of every dataset here: inputs, labels, weights; weights are () where there
# are none. A worker's share of a dataset has one more part, as `tlkit.data.batches`
# says of `fill`.


@dataclasses.dataclass(frozen=True)
class Share:
    """Which examples of every batch one of several workers takes.

    Attributes:
        workers: How many there are.
        worker: Which of them this is.
        replicas: How many replicas all of them have; each gets as many examples.
    """

    workers: int
    worker: int
    replicas: int


@dataclasses.dataclass(frozen=True)
class Feed:
    """Batches of examples, epoch by epoch.

    Attributes:
        batches: Gives the batches of an epoch by its number, shuffled; those of `None`
            stand in the order of the data. Also takes `skip=`, how many to leave out
            at the beginning, and `share=`, a worker's.
        steps: How many batches an epoch has; `None` if that is not known, infinity if
            it never ends.
        examples: How many examples, if that is known.
        repeats: Whether every epoch has the same examples, so that what is computed of
            them can be kept.
        from_table: Makes a feed of arrays that hold as many examples.
        batch_size: Examples in a whole batch, if that is known.
        by_size: For texts: gives the positions of the examples from the longest to the
            shortest, and batches in this order, which need the least padding.
    """

    batches: Callable[..., tf.data.Dataset]
    steps: int | float | None
    examples: int | None
    repeats: bool
    from_table: Callable[[Any], Feed]
    batch_size: int | None = None
    by_size: Callable[[], tuple[np.ndarray, tf.data.Dataset]] | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples become batches.

    Attributes:
        batch_size: Examples in a batch.
        seed: Decides the order.
        preprocess: Turns raw examples into inputs, as for `data.batches`, or `None`.
        label_index: Gives the index of a label's name, or `None`.
    """

    batch_size: int
    seed: int = 0
    preprocess: Callable | None = None
    label_index: Callable[[str], int] | None = None


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
        return _split_feed(dataset.map(_triple), options)
    steps = int(dataset.cardinality())
    known = {tf.data.INFINITE_CARDINALITY: math.inf, tf.data.UNKNOWN_CARDINALITY: None}
    batches = dataset.map(_triple)
    raw = spec[0]
    if options.preprocess is not None and _is_strings(raw):
        batches = batches.map(
            lambda raws, *rest: (options.preprocess.batch(raws), *rest),
            num_parallel_calls=tf.data.AUTOTUNE,
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
        from_table=lambda rows: table_feed(rows, options),
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
        return table_feed((x, y, weights), options)
    with tf.device("CPU"):
        return _split_feed(tf.data.Dataset.from_tensor_slices((x, y, weights)), options)


def table_feed(table: tuple[Any, Any, Any], options: Options) -> Feed:
    """A feed of inputs, labels and weights that are in memory as arrays."""
    with tf.device("CPU"):
        tensors = tf.nest.map_structure(tf.convert_to_tensor, table)
    count = len(tf.nest.flatten(tensors)[0])

    def gather(rows, *present):
        gathered = tf.nest.map_structure(lambda t: tf.gather(t, rows), tensors)
        return (*gathered, *present)

    def batches(epoch: int | None, **which) -> tf.data.Dataset:
        # Shuffles numbers and gathers whole batches: much faster than one by one.
        numbers = _in_batches(
            tf.data.Dataset.range(count), None, options, epoch, **which
        )
        return numbers.map(gather, num_parallel_calls=tf.data.AUTOTUNE)

    steps = math.ceil(count / options.batch_size)
    return Feed(
        batches,
        steps,
        count,
        repeats=True,
        from_table=lambda rows: table_feed(rows, options),
        batch_size=options.batch_size,
    )


def _split_feed(dataset: tf.data.Dataset, options: Options) -> Feed:
    count = int(dataset.cardinality())
    known = count if count >= 0 else None
    steps = None if known is None else math.ceil(known / options.batch_size)
    if count == tf.data.INFINITE_CARDINALITY:
        steps = math.inf
    if known == 0:
        raise DataError("The dataset has no examples.")

    def batches(epoch: int | None, **which) -> tf.data.Dataset:
        return _in_batches(dataset, options.preprocess, options, epoch, **which)

    texts = _is_strings(dataset.element_spec[0]) and not getattr(
        options.preprocess, "per_example", True
    )
    by_size = (lambda: _by_size(dataset, options)) if texts else None
    return Feed(
        batches,
        steps,
        known,
        repeats=True,
        batch_size=options.batch_size,
        by_size=by_size,
        from_table=lambda rows: table_feed(rows, options),
    )


def _by_size(dataset, options: Options) -> tuple[np.ndarray, tf.data.Dataset]:
    parts = list(dataset.batch(1024).as_numpy_iterator())
    merged = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    lengths = np.array([len(raw) for raw in merged[0]])
    order = np.argsort(-lengths, kind="stable")
    with tf.device("CPU"):
        rows = tf.nest.map_structure(lambda array: tf.constant(array[order]), merged)
        dataset = tf.data.Dataset.from_tensor_slices(rows)
    return order, _in_batches(dataset, options.preprocess, options, None)


def _in_batches(
    dataset,
    preprocess,
    options: Options,
    epoch: int | None,
    *,
    skip: int = 0,
    share: Share | None = None,
):
    shared = {}
    if share is not None:
        shared = {"workers": share.workers, "worker": share.worker}
        shared["fill"] = share.replicas
    return data.batches(
        dataset,
        preprocess,
        batch_size=options.batch_size,
        shuffle=epoch is not None,
        seed=options.seed,
        epoch=epoch or 0,
        skip=skip,
        **shared,
    )


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


# === Class weights ===


def weigh_classes(
    feed: Feed, class_weight: Mapping[int | str, float] | None, options: Options
) -> Feed:
    """The same feed, with each example's weight multiplied by that of its class.

    Args:
        feed: The feed.
        class_weight: Weights by the index or the name of the label; 1 for classes that
            are not there.
        options: Those that the feed was made with.

    Raises:
        DataError: A label is unknown, or a weight is not a number of 0 or more.
    """
    if not class_weight:
        return feed
    weights = {_class_index(key, options): w for key, w in class_weight.items()}
    wrong = [w for w in weights.values() if not (np.isscalar(w) and 0 <= w < math.inf)]
    if wrong:
        raise DataError(f"class_weight must be numbers of 0 or more; got {wrong[0]!r}.")
    keys = tf.constant(list(weights), tf.int64)
    values = tf.constant(list(weights.values()), tf.float32)

    def weigh(inputs, labels, old, *present):
        hits = tf.cast(_classes(labels)[:, tf.newaxis] == keys, tf.float32)
        new = tf.reduce_sum(hits * (values - 1.0), axis=1) + 1.0
        new = new if isinstance(old, tuple) else old * new
        return (inputs, labels, new, *present)

    def by_size():
        order, batches = feed.by_size()
        return order, batches.map(weigh)

    return dataclasses.replace(
        feed,
        batches=lambda epoch, **which: feed.batches(epoch, **which).map(weigh),
        by_size=by_size if feed.by_size else None,
    )


def _class_index(key, options: Options) -> int:
    if isinstance(key, str):
        if options.label_index is None:
            raise DataError(
                f"class_weight names the label {key!r}, but this model has no names of "
                "labels. Give their indices."
            )
        return options.label_index(key)
    if isinstance(key, (int, np.integer)) and key >= 0:
        return int(key)
    raise DataError(f"class_weight is by index or name of a label; got {key!r}.")


def _classes(labels: tf.Tensor) -> tf.Tensor:
    if labels.shape.rank == 2 and labels.shape[-1] != 1:
        return tf.argmax(labels, axis=-1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)


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
