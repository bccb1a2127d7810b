"""`Feed`: batches of examples, epoch by epoch, from any kind of input.

The elements of every dataset here are `(inputs, labels, weights)`, with () for weights
that are not given. If several workers train, elements also have `present`, which is 0
for padding: see `fill` of `tlkit.data.batches`.

Tested in tests/training/feeds/test_feeds.py.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...errors import DataError
from .array_rows import Lengths, Rows


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples become batches.

    Attributes:
        batch_size: Examples in a batch.
        seed: Decides the order.
        preprocess: Turns raw examples into inputs, as for `data.batches`, or `None`.
        label_index: Returns the index of a label's name, or `None`.
        classes: The number of labels of a classifier of tlkit, or `None`.
        shuffle: Whether the examples of training epochs are shuffled.
        augmentation: How training images are augmented, or `None`.
        verbose: 0 for silence.
    """

    batch_size: int
    seed: int = 0
    preprocess: Callable | None = None
    label_index: Callable[[str], int] | None = None
    classes: int | None = None
    shuffle: bool = True
    augmentation: data.Augmentation | None = None
    verbose: int = 0


@dataclasses.dataclass(frozen=True)
class WorkerPart:
    """Which examples of every batch one of several workers reads.

    Attributes:
        workers: How many workers there are.
        worker: The index of this worker, from 0.
        replicas: How many replicas all workers have; all replicas get equally many
            examples.
    """

    workers: int
    worker: int
    replicas: int


def worker_arguments(part: WorkerPart | None) -> dict[str, int]:
    """Returns arguments with which a worker reads only its share of each batch.

    `data.batches` and `data.examples.order` take them.
    """
    if part is None:
        return {}
    return {"workers": part.workers, "worker": part.worker, "fill": part.replicas}


class Feed(abc.ABC):
    """Batches of examples, epoch by epoch.

    Attributes:
        steps: How many batches an epoch has; `None` if that is not known, infinity if
            it never ends.
        examples: How many examples an epoch has; `None` if that is not known.
        batch_size: Examples in a full batch; `None` if that is not known.
        lengths: The lengths of texts that are tokenized in memory; else `None`.
        repeats: Whether every epoch has the same examples. For a user's stream it is
            true though not known: only a cache that the user chose relies on it.
        has_views: Whether the data is augmented, so `view` can be called.
        stream_buffer: How many examples of a user's stream are shuffled at a time;
            `None` for all other data.
        continues: Whether an epoch continues where the previous one ended. `batches` is
            then called once in a run, and `skip` counts batches of the whole run.
        open_iterator: The iterator of a feed that continues, once an epoch has begun.
        notes: Lines for the user about limits of this input.
    """

    steps: int | float | None = None
    examples: int | None = None
    batch_size: int | None = None
    lengths: Lengths | None = None
    repeats: bool = False
    has_views: bool = False
    stream_buffer: int | None = None
    continues: bool = False
    open_iterator: Iterator | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def element_spec(self) -> tuple:
        """The specs `(inputs, labels, weights)` of all batches, traced only once."""
        return self.batches(None).element_spec

    @abc.abstractmethod
    def batches(
        self, epoch: int | None, *, skip: int = 0, part: WorkerPart | None = None
    ) -> tf.data.Dataset:
        """Returns the batches of an epoch.

        Args:
            epoch: Its number from 0, which decides the order; `None` for the order of
                the data.
            skip: How many batches to leave out at the beginning.
            part: Which examples this worker reads; `None` for all.
        """

    def with_inputs(
        self, rows: Rows, labels: Any, weights: Any, *, views: int = 1
    ) -> Feed:
        """Returns a feed of the same examples with other inputs, in the same orders.

        Args:
            rows: The inputs, such as cached activations, in the order of the data.
            labels: The labels of these rows, as an array or a nest of arrays.
            weights: The weights of these rows, or ().
            views: How many views of each example the rows hold, one after the other;
                the epochs take turns with them.
        """
        raise NotImplementedError

    def longest_first(self) -> tuple[np.ndarray, tf.data.Dataset]:
        """Returns an order of texts from the longest to the shortest, and its batches.

        Batches in this order need the least padding. The feed must have `lengths`.

        Returns:
            int64 `[examples]` indices into the data, and the batches in this order.
        """
        raise NotImplementedError

    def labels_and_weights(self) -> tuple[Any, Any]:
        """Returns all labels and weights as NumPy arrays, in the order of the data."""
        raise NotImplementedError

    def digest(self) -> str:
        """Computes a digest of all inputs and of how they are preprocessed."""
        raise NotImplementedError

    def view(self, number: int) -> tf.data.Dataset:
        """Returns one augmented view of all examples, in the order of the data."""
        raise NotImplementedError

    def known_labels(self) -> Any:
        """Returns all labels, if they are in memory; otherwise `None`."""
        return None

    def begin_epoch(self) -> None:
        """Calls the hooks of a user's data that must run before a pass over it."""
        return

    def end_epoch(self) -> None:
        """Calls the hooks of a user's data that must run after a pass over it."""
        return


def check_enough(steps: int, count: int) -> None:
    """Raises a `DataError` if `validation_steps` are more than the batches there are.

    Args:
        steps: `validation_steps` of `fit`.
        count: The number of batches; negative if it is unknown or infinite.
    """
    if 0 <= count < steps:
        raise DataError(
            f"validation_steps={steps}, but the validation data has {count} batches."
        )


class WrappedFeed(Feed):
    """Delegates everything to another feed; base class of feeds that modify one."""

    def __init__(self, feed: Feed):
        self.feed = feed
        self.steps, self.examples = feed.steps, feed.examples
        self.batch_size, self.lengths = feed.batch_size, feed.lengths
        self.repeats, self.has_views = feed.repeats, feed.has_views
        self.stream_buffer, self.continues = feed.stream_buffer, feed.continues
        self.notes = feed.notes

    def batches(self, epoch, *, skip=0, part=None):
        return self.feed.batches(epoch, skip=skip, part=part)

    def with_inputs(self, rows, labels, weights, *, views=1):
        return self.feed.with_inputs(rows, labels, weights, views=views)

    def longest_first(self):
        return self.feed.longest_first()

    def labels_and_weights(self):
        return self.feed.labels_and_weights()

    def digest(self):
        return self.feed.digest()

    def view(self, number):
        return self.feed.view(number)

    def known_labels(self):
        return self.feed.known_labels()

    def begin_epoch(self):
        self.feed.begin_epoch()

    def end_epoch(self):
        self.feed.end_epoch()


class CountedFeed(WrappedFeed):
    """Adds the counted number of batches to a feed that did not know it."""

    def __init__(self, feed: Feed, steps: int):
        super().__init__(feed)
        self.steps = steps
