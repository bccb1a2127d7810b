"""Activations of all examples are computed once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.progress import progress
from ..models.anatomy import split
from ..models.halving import FEATURES, lower_half, upper_half
from .feeds import Feed
from .rows import Lengths
from .stored_rows import Column, StoredRows

# How much the features may change by rounding: of the largest of them.
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2}


class CannotKeep(Exception):
    """Why activations cannot be kept; training goes on without."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One set of activations that is to be computed.

    Attributes:
        cut: `FEATURES` or the index of a segment.
        dtype: As which numbers are kept.
        make: Makes the rows, of a structure and columns.
    """

    cut: int
    dtype: str
    make: Callable[[Any, Sequence[Column]], StoredRows]


class Lower:
    """The lower half of a model, traced once for all data of one form.

    It holds the weights as they were when it was made.

    Args:
        model: The whole model.
        cuts: Where activations are wanted.
    """

    def __init__(self, model: keras.Model, cuts: Sequence[int]):
        self.model, self.cuts = model, tuple(cuts)
        self._half = lower_half(model, cuts)
        self._traced: dict[str, Any] = {}

    def traced(self, spec: Any) -> Any:
        """The concrete function of inputs of a form."""
        key = repr(spec)
        if key not in self._traced:
            run = tf.function(self._half, autograph=False)
            self._traced[key] = run.get_concrete_function(spec)
        return self._traced[key]


def fill(
    lower: Lower, feed: Feed, wanted: Sequence[Wanted], *, what: str, verbose: int
) -> tuple[list[StoredRows], Any, Any]:
    """Runs the lower half of a model over all examples.

    Args:
        lower: The lower half; its cuts are those of `wanted`.
        feed: The examples.
        wanted: What is to be kept; all of it comes from one pass.
        what: What this is, for the progress bar.
        verbose: 0 for silence.

    Returns:
        The rows of each, and all labels and weights, in the order of the data.

    Raises:
        CannotKeep: The activations have no axis of examples, are too large for their
            dtype, or padding would change them.
        OSError: The disk is full.
    """
    order, dataset = np.arange(feed.examples), feed.batches(None)
    if feed.by_size is not None:
        order, dataset = feed.by_size()
    run = lower.traced(dataset.element_spec[0])
    stores: list[StoredRows] = []
    marks, done = [], 0
    total = feed.steps if feed.steps not in (None, math.inf) else None
    for inputs, *mark in progress(dataset, total=total, what=what, verbose=verbose):
        states = run(inputs)
        places = order[done : done + len(tf.nest.flatten(inputs)[0])]
        if not stores:
            pairs = zip(wanted, run.structured_outputs, states, strict=True)
            stores = [_store(w, s, state, feed.lengths) for w, s, state in pairs]
        for store, state in zip(stores, states, strict=True):
            _write(store, places, state)
        if not done:
            _check(lower.model, list(zip(wanted, stores, strict=True)), places, inputs)
        marks.append(tf.nest.map_structure(np.asarray, mark))
        done += len(places)
    if done != feed.examples:
        raise CannotKeep(
            f"the data gave {done:,} examples instead of {feed.examples:,}"
        )
    labels, weights = tf.nest.map_structure(lambda *m: np.concatenate(m), *marks)
    back = np.argsort(order)
    labels, weights = tf.nest.map_structure(lambda m: m[back], (labels, weights))
    return stores, labels, weights


def _store(wanted: Wanted, specs, state, lengths: Lengths | None) -> StoredRows:
    leaves = zip(tf.nest.flatten(specs), tf.nest.flatten(state), strict=True)
    missing = (0, *(lengths.missing if lengths is not None else ()))
    columns = [
        _column(i, spec, value, wanted.dtype, missing, lengths)
        for i, (spec, value) in enumerate(leaves)
    ]
    return wanted.make(specs, columns)


def _column(i, spec, value, dtype, missing, lengths) -> Column:
    name = spec.dtype.name
    kept = dtype if spec.dtype.is_floating else name
    if spec.shape.rank is None or spec.shape.rank < 1:
        raise CannotKeep("the tensor at the cut has no axis of examples")
    unknown = [axis for axis, size in enumerate(spec.shape) if axis and size is None]
    if not unknown:
        return Column(kept, tuple(spec.shape[1:]), read_as=name)
    if unknown != [1] or lengths is None:
        raise CannotKeep("the size of the tensor at the cut differs between batches")
    fill_with = missing[i] if i < len(missing) else 0
    return Column(kept, tuple(spec.shape[2:]), True, fill_with, name)


def _write(store: StoredRows, places: np.ndarray, state: Any) -> None:
    leaves = [leaf.numpy() for leaf in tf.nest.flatten(state)]
    if any(len(leaf) != len(places) for leaf in leaves):
        raise CannotKeep("the tensor at the cut has no axis of examples")
    cast = [
        leaf.astype(c.dtype, copy=False)
        for leaf, c in zip(leaves, store.columns, strict=True)
    ]
    for leaf, half in zip(leaves, cast, strict=True):
        if half.dtype == np.float16 and not np.isfinite(half).all():
            raise CannotKeep(
                f"numbers up to {np.abs(leaf).max():.3g} do not fit in float16"
            )
    for i, place in enumerate(places):
        length = None if store.lengths is None else int(store.lengths.each[place])
        values = [
            leaf[i, :length] if column.varies else leaf[i]
            for leaf, column in zip(cast, store.columns, strict=True)
        ]
        store.write(int(place), values)


def _check(
    model: keras.Model, pairs: Sequence[tuple[Wanted, StoredRows]], places, inputs
) -> None:
    """Makes sure that what comes back gives the same features as the inputs do."""
    inside = [(one, store) for one, store in pairs if one.cut != FEATURES]
    if not inside:
        return
    trunk, _ = split(model)
    right = trunk(inputs, training=False)
    largest = float(tf.reduce_max(tf.abs(right))) or 1.0
    for one, store in inside:
        state = store.gather(tf.constant(places))
        found = upper_half(model, one.cut).features(state)
        apart = float(tf.reduce_max(tf.abs(found - right))) / largest
        if not apart <= _TOLERANCE[one.dtype]:
            raise CannotKeep(
                f"features that are computed from it are off by {apart:.1e}; padding, "
                "or rounding, seems to count in this encoder"
            )
