"""Feeds: batches for every epoch, whatever they are made of."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...data.augmentation import view_number
from ...data.examples import order, parallel_map, untuned
from .array_rows import Lengths, Rows, tensor_rows

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
        with_rows: Makes a feed of other inputs, such as features, of the same examples
            in the same order: takes `Rows`, labels and weights.
        batch_size: Examples in a whole batch, if that is known.
        by_size: For texts: gives the positions of the examples from the longest to the
            shortest, and batches in this order, which need the least padding.
        lengths: How long texts are, where they were cut into tokens.
        marks: Gives all labels and weights, in the order of the data.
        digest: Gives a digest of all inputs and of how they are made.
        view: Gives one augmented view of all examples, by its number, in the order of
            the data; for data that is augmented.
    """

    batches: Callable[..., tf.data.Dataset]
    steps: int | float | None
    examples: int | None
    repeats: bool
    with_rows: Callable[..., Feed]
    batch_size: int | None = None
    by_size: Callable[[], tuple[np.ndarray, tf.data.Dataset]] | None = None
    lengths: Lengths | None = None
    marks: Callable[[], tuple[Any, Any]] | None = None
    digest: Callable[[], str] | None = None
    view: Callable[[int], tf.data.Dataset] | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """How examples become batches.

    Attributes:
        batch_size: Examples in a batch.
        seed: Decides the order.
        preprocess: Turns raw examples into inputs, as for `data.batches`, or `None`.
        augmentation: What is done to the pictures to train on, or `None`.
        verbose: 0 for silence.
        label_index: Gives the index of a label's name, or `None`.
    """

    batch_size: int
    seed: int = 0
    preprocess: Callable | None = None
    label_index: Callable[[str], int] | None = None
    augmentation: data.Augmentation | None = None
    verbose: int = 0


def shared_out(share: Share | None) -> dict[str, int]:
    """What `data.batches` and `order` take of a worker's share."""
    if share is None:
        return {}
    return {"workers": share.workers, "worker": share.worker, "fill": share.replicas}


def rows_feed(
    rows: Rows,
    labels: Any,
    weights: Any,
    options: Options,
    *,
    lengths: Lengths | None = None,
    buffer: int | None = None,
    views: int = 1,
) -> Feed:
    """A feed of examples with random access.

    Args:
        rows: The inputs.
        labels: As many, as an array or a nest of arrays.
        weights: As many, or ().
        options: How they become batches.
        lengths: How long the texts are that the inputs are, or were made of: those of
            similar lengths come together.
        buffer: Shuffle as with a buffer of that size. Default: all.
        views: How many views of each example the rows hold, one after the other; the
            epochs take turns with them.
    """
    count = rows.count // views
    marks = tensor_rows((labels, weights))
    how = {
        "batch_size": options.batch_size,
        "seed": options.seed,
        "buffer": buffer,
        "lengths": None if lengths is None else lengths.each,
    }

    # Traced once, not in every epoch, which took a tenth of a second.
    @functools.cache
    def loader(view: int):
        def load(places, *present):
            given = places >= 0
            places, *present = (tf.boolean_mask(x, given) for x in (places, *present))
            inputs = rows.gather(places + view * count)
            return (inputs, *marks.gather(places), *present)

        return tf.function(load, autograph=False)

    def dataset_of(*parts: np.ndarray, view: int = 0) -> tf.data.Dataset:
        with tf.device("CPU"):
            dataset = tf.data.Dataset.from_tensor_slices(parts)
        loaded = parallel_map(dataset, loader(view), batched=True)
        return untuned(loaded.prefetch(tf.data.AUTOTUNE))

    def batches(epoch: int | None, *, skip: int = 0, share: Share | None = None):
        found = order(
            count,
            shuffle=epoch is not None,
            epoch=epoch or 0,
            **how,
            **shared_out(share),
        )
        marked = [] if share is None else [found.present]
        parts = [part[skip:] for part in (found.rows, *marked)]
        return dataset_of(*parts, view=view_number(epoch or 0, views))

    def by_size() -> tuple[np.ndarray, tf.data.Dataset]:
        places = np.argsort(-lengths.each, kind="stable")
        padded = np.full(-(-count // options.batch_size) * options.batch_size, -1)
        padded[:count] = places
        return places, dataset_of(padded.reshape(-1, options.batch_size))

    return Feed(
        batches,
        math.ceil(count / options.batch_size),
        count,
        repeats=True,
        batch_size=options.batch_size,
        with_rows=lambda *table: rows_feed(
            *table, options, lengths=lengths, buffer=buffer
        ),
        by_size=by_size if lengths is not None else None,
        lengths=lengths,
        marks=lambda: tf.nest.map_structure(np.asarray, marks.columns),
        digest=rows.digest,
    )
