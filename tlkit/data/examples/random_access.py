"""Random access to the examples of a split: `Examples`, and datasets as views of them.

A loader makes `Examples` for each split. The split that a user gets is a view of them:
a plain `tf.data.Dataset`, from `Examples.dataset()`. This module remembers for each
view its `Examples` (`examples_of`). A dataset that is derived from a view, such as
`splits.train.map(f)`, is no view: it is read as a stream. A stream is shuffled within a
buffer. Its examples may differ between epochs, so `fit` does not cache activations of
it, and prints a note. Streams of loaders that cannot read by index, such as TFDS's, are
marked as repeatable (`mark_repeatable`): activations of these can be cached.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ...progress import progress
from .example_order import Order
from .raw_values import from_bytes, raw_spec, to_bytes
from .tf_data import deterministic, parallel_map, untuned

_MEMORY_LIMIT = 2**30  # bytes of examples that `pick` reads into memory
_LABELS_PER_CHUNK = 1024
_EXAMPLES_PER_CHUNK = 16

# The `Examples` of each dataset that is a view of them; `None` for a repeatable stream.
# A value must not refer to its key, or the entry would never be freed.
_VIEWS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one split, each of which can be read by its index.

    Attributes:
        labels: int32 `[n]`, the class of each example.
        read: Takes indices (int64 `[m]`) and returns a dataset of their examples, in
            this order; an index may come more than once.
        stream: Returns a dataset of all examples in their order; `None` if that is no
            faster than to read each by its index.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], tf.data.Dataset]
    stream: Callable[[], tf.data.Dataset] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def dataset(self) -> tf.data.Dataset:
        """Returns a view: a dataset, for which `examples_of` returns this object."""
        if self.stream is not None:
            view = self.stream()
        else:
            view = self.read(np.arange(len(self)))
        _VIEWS[view] = self
        return view

    def pick(self, indices: np.ndarray) -> Examples:
        """Returns the examples at some indices (int64 `[m]`), in this order."""
        indices = np.asarray(indices, np.int64)
        return Examples(self.labels[indices], lambda inner: self.read(indices[inner]))

    def map(self, function: Callable, labels: np.ndarray | None = None) -> Examples:
        """Applies a function to every example when it is read.

        Args:
            function: Takes a raw value and a label, and returns both.
            labels: int32 `[n]`, the new labels, if the function changes them.
        """
        stream = self.stream
        return Examples(
            self.labels if labels is None else labels,
            lambda indices: _mapped(self.read(indices), function),
            None if stream is None else lambda: _mapped(stream(), function),
        )


def examples_of(dataset: tf.data.Dataset) -> Examples | None:
    """Returns the `Examples` of which a dataset is a view; `None` for a stream."""
    return _VIEWS.get(dataset)


def mark_repeatable(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Marks a stream that has the same examples in the same order in every epoch."""
    _VIEWS.setdefault(dataset, None)
    return dataset


def is_repeatable(dataset: tf.data.Dataset) -> bool:
    """Returns whether a dataset is known to have the same examples in every epoch."""
    return dataset in _VIEWS


def map_examples(
    dataset: tf.data.Dataset, function: Callable, labels: np.ndarray | None = None
) -> tf.data.Dataset:
    """Applies a function to every example; the result is a view if the dataset is one.

    Args:
        dataset: Elements `(raw, label)`, not batched.
        function: Takes a raw value and a label, and returns both, without randomness.
        labels: int32 `[n]`, the new labels, if the function changes them.
    """
    examples = examples_of(dataset)
    if examples is not None:
        return examples.map(function, labels).dataset()
    mapped = _mapped(dataset, function)
    return mark_repeatable(mapped) if is_repeatable(dataset) else mapped


def take_examples(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Takes the first `count` examples; the result is a view if the dataset is one."""
    examples = examples_of(dataset)
    if examples is not None:
        return examples.pick(np.arange(min(count, len(examples)))).dataset()
    taken = dataset.take(count)
    return mark_repeatable(taken) if is_repeatable(dataset) else taken


def labels_of(dataset: tf.data.Dataset, *, verbose: int = 1) -> np.ndarray:
    """Returns the class of each example, int32 `[n]`; reads a stream to its end."""
    examples = examples_of(dataset)
    if examples is not None:
        return examples.labels
    labels = parallel_map(dataset, lambda raw, label: label).batch(_LABELS_PER_CHUNK)
    chunks = _with_progress(labels, "reading labels", verbose)
    return np.concatenate([np.zeros(0, np.int32), *chunks])


def pick(
    dataset: tf.data.Dataset, indices: np.ndarray, *, verbose: int = 1
) -> tf.data.Dataset:
    """Returns a view of the examples at some indices, in this order.

    Examples of a stream are read once and held in memory; images stay encoded.

    Args:
        dataset: Elements `(raw, label)`, not batched.
        indices: int64 `[m]`; an index may come more than once.
        verbose: 1 shows the progress of reading a stream, 0 is silent.

    Raises:
        DataError: The examples of a stream take more than 1 GiB.
    """
    examples = examples_of(dataset)
    if examples is None:
        distinct, indices = np.unique(indices, return_inverse=True)
        examples = _read_into_memory(dataset, distinct, verbose)
    return examples.pick(indices).dataset()


def read_order(examples: Examples, order: Order, *, marked: bool) -> tf.data.Dataset:
    """Reads the examples of an order, one by one.

    Args:
        examples: All examples.
        order: The order of an epoch, or one worker's part of it.
        marked: Whether to add a part to each element: float32, 0 for padding examples,
            1 for the others.
    """
    indices = order.rows.ravel()
    inside = indices >= 0
    dataset = examples.read(indices[inside])
    if not marked:
        return dataset
    present = tf.data.Dataset.from_tensor_slices(order.present.ravel()[inside])
    return tf.data.Dataset.zip(dataset, present).map(lambda parts, one: (*parts, one))


def tensor_examples(
    raws: tf.Tensor | np.ndarray | list,
    labels: np.ndarray | list,
    finish: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Examples:
    """Makes `Examples` of values in memory.

    Args:
        raws: `[n, …]` numbers, or `n` strings.
        labels: `[n]` integers.
        finish: Turns one of `raws` into the raw value of the example, such as a path
            into the contents of the file.
    """
    # Without this, the whole array would be copied to a GPU, if there is one.
    with tf.device("CPU:0"):
        raws, labels = tf.convert_to_tensor(raws), np.asarray(labels, np.int32)

    def finished(raw, label):
        return (raw if finish is None else finish(raw)), label

    def read(indices: np.ndarray) -> tf.data.Dataset:
        with tf.device("CPU:0"):
            pairs = tf.data.Dataset.from_tensor_slices((indices, labels[indices]))
        return _mapped(pairs, lambda index, label: finished(raws[index], label))

    def stream() -> tf.data.Dataset:
        with tf.device("CPU:0"):
            pairs = tf.data.Dataset.from_tensor_slices((raws, labels))
        return deterministic(pairs) if finish is None else _mapped(pairs, finished)

    return Examples(labels, read, stream)


def _mapped(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    return deterministic(parallel_map(dataset, function))


def _read_into_memory(
    dataset: tf.data.Dataset, indices: np.ndarray, verbose: int
) -> Examples:
    """Reads the examples of a stream at some sorted indices."""
    spec = raw_spec(dataset)
    chosen = np.zeros(int(indices.max(initial=-1)) + 1, bool)
    chosen[indices] = True
    flags = tf.data.Dataset.from_tensor_slices(chosen)
    pairs = tf.data.Dataset.zip(dataset, flags)
    pairs = pairs.filter(lambda example, flag: flag)
    pairs = pairs.map(lambda example, flag: (to_bytes(example[0]), example[1]))
    chunks = pairs.batch(_EXAMPLES_PER_CHUNK).prefetch(1)
    total = -(-len(indices) // _EXAMPLES_PER_CHUNK)
    raws, labels, size = [], [], 0
    for some_raws, some_labels in _with_progress(
        chunks, "reading examples", verbose, total
    ):
        raws += some_raws.tolist()
        labels += some_labels.tolist()
        size += sum(map(len, raws[-len(some_raws) :]))
        if size > _MEMORY_LIMIT:
            raise DataError(
                "This dataset has no random access, so its examples would be held in "
                f"memory, and they take more than {_MEMORY_LIMIT / 2**30:g} GiB. Write "
                "it into shards first, which have it. Type: splits = "
                'tlkit.data.tfrecords(tlkit.data.write_shards(splits, "shards"))'
            )
    if len(raws) != len(indices):
        raise DataError(
            f"The dataset has {len(raws):,} of the {len(indices):,} examples that it "
            "had when its labels were read: its order or its length changes."
        )
    contents = np.array(raws, object) if raws else np.zeros(0, "S1")
    return tensor_examples(contents, labels, lambda raw: from_bytes(raw, spec))


def _with_progress(
    dataset: tf.data.Dataset, what: str, verbose: int, total: int | None = None
) -> Iterator[Any]:
    """Iterates over a dataset and shows the progress."""
    if total is None:
        total = max(1, int(dataset.cardinality()))
    elements = untuned(dataset).as_numpy_iterator()
    return progress(elements, total=total, what=what, verbose=verbose)
