"""Activations of all examples are computed once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...models import FEATURES, lower_half, split, upper_half
from ...progress import progress
from ..feeds.array_rows import Lengths
from ..feeds.feed import Feed
from .cached_rows import Column, StoredRows

# How much the features may change by rounding: of the largest of them.
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2}


class CannotKeep(Exception):
    """Why activations cannot be kept; training goes on without.

    Attributes:
        cut: Of which cut this is said; `None` for all.
    """

    cut: int | None = None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One set of activations that is to be computed.

    Attributes:
        cut: `FEATURES` or the index of a section.
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
    first = last = None
    marks, done = [], 0
    total = feed.steps if feed.steps not in (None, math.inf) else None
    for inputs, *mark in progress(dataset, total=total, what=what, verbose=verbose):
        states = run(inputs)
        places = order[done : done + len(tf.nest.flatten(inputs)[0])]
        if not stores:
            specs = run.structured_outputs
            pairs = zip(wanted, specs, strict=True)
            stores = [_store(one, spec, feed.lengths) for one, spec in pairs]
        for one, store, state in zip(wanted, stores, states, strict=True):
            _write(one, store, places, state)
        last = places, inputs
        if first is None:
            first = last
            _check_whole(lower.model, wanted, stores, *first)
        marks.append(tf.nest.map_structure(np.asarray, mark))
        done += len(places)
    if done != feed.examples:
        raise CannotKeep(
            f"the data gave {done:,} examples instead of {feed.examples:,}"
        )
    if feed.by_size is not None:
        places, inputs = _mixed(first, last, feed.lengths)
        _check_padding(lower.model, wanted, stores, places, run(inputs))
    labels, weights = tf.nest.map_structure(lambda *m: np.concatenate(m), *marks)
    back = np.argsort(order)
    labels, weights = tf.nest.map_structure(lambda m: m[back], (labels, weights))
    return stores, labels, weights


@contextlib.contextmanager
def _naming(cut: int) -> Iterator[None]:
    """Says of which cut it is that something cannot be kept."""
    try:
        yield
    except CannotKeep as error:
        error.cut = cut
        raise


def _store(wanted: Wanted, specs: Any, lengths: Lengths | None) -> StoredRows:
    missing = (0, *(lengths.missing if lengths is not None else ()))
    with _naming(wanted.cut):
        columns = [
            _column(spec, wanted.dtype, missing[i] if i < len(missing) else 0, lengths)
            for i, spec in enumerate(tf.nest.flatten(specs))
        ]
        return wanted.make(specs, columns)


def _column(spec, dtype: str, missing: int, lengths: Lengths | None) -> Column:
    name = spec.dtype.name
    kept = dtype if spec.dtype.is_floating else name
    if spec.shape.rank is None or spec.shape.rank < 1:
        raise CannotKeep("the tensor at the cut has no axis of examples")
    unknown = [axis for axis, size in enumerate(spec.shape) if axis and size is None]
    if not unknown:
        return Column(kept, tuple(spec.shape[1:]), read_as=name)
    if unknown != [1] or lengths is None:
        raise CannotKeep("the size of the tensor at the cut differs between batches")
    return Column(kept, tuple(spec.shape[2:]), True, missing, name)


def _write(wanted: Wanted, store: StoredRows, places: np.ndarray, state: Any) -> None:
    leaves = [leaf.numpy() for leaf in tf.nest.flatten(state)]
    with _naming(wanted.cut):
        if any(len(leaf) != len(places) for leaf in leaves):
            raise CannotKeep("the tensor at the cut has no axis of examples")
        pairs = zip(leaves, store.columns, strict=True)
        cast = [_cast(leaf, column.dtype) for leaf, column in pairs]
    for i, place in enumerate(places):
        length = None if store.lengths is None else int(store.lengths.each[place])
        values = [
            leaf[i, :length] if column.varies else leaf[i]
            for leaf, column in zip(cast, store.columns, strict=True)
        ]
        store.write(int(place), values)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = values.astype(dtype, copy=False)
    if found.dtype == np.float16 and not np.isfinite(found).all():
        raise CannotKeep(
            f"numbers up to {np.abs(values).max():.3g} do not fit in float16"
        )
    return found


def _mixed(first, last, lengths: Lengths):
    """Places and inputs of a batch with some of the longest and shortest texts.

    Args:
        first: Those of the first batch, the longest ones.
        last: Those of the last batch.
        lengths: How texts are padded.
    """
    (places, inputs), (short_places, short_inputs) = first, last
    # As many as in the first batch, for which everything is traced.
    short = min(len(short_places), max(1, len(places) // 2))
    long = max(1, len(places) - short)

    def merged(whole, part, missing):
        room = [[0, 0], [0, whole.shape[1] - part.shape[1]]]
        padded = tf.pad(part[-short:], room, constant_values=missing)
        return tf.concat([whole[:long], padded], 0)

    columns = zip(
        tf.nest.flatten(inputs),
        tf.nest.flatten(short_inputs),
        lengths.missing,
        strict=True,
    )
    flat = [merged(*column) for column in columns]
    both = np.concatenate([places[:long], short_places[-short:]])
    return both, tf.nest.pack_sequence_as(inputs, flat)


def _check_whole(
    model: keras.Model,
    wanted: Sequence[Wanted],
    stores: Sequence[StoredRows],
    places: np.ndarray,
    inputs: Any,
) -> None:
    """Makes sure that what comes back gives the same features as the inputs do."""
    pairs = zip(wanted, stores, strict=True)
    inside = [(one, store) for one, store in pairs if one.cut != FEATURES]
    if inside:
        trunk, _ = split(model)
        right = trunk(inputs, training=False)
        for one, store in inside:
            _compare(one, _features(model, one, store.gather(places)), right)


def _check_padding(
    model: keras.Model,
    wanted: Sequence[Wanted],
    stores: Sequence[StoredRows],
    places: np.ndarray,
    states: Sequence[Any],
) -> None:
    """Makes sure that it does not matter how far texts were padded."""
    for one, store, state in zip(wanted, stores, states, strict=True):
        right = _features(model, one, state)
        _compare(one, _features(model, one, store.gather(places)), right)


def _features(model: keras.Model, wanted: Wanted, state: Any) -> tf.Tensor:
    if wanted.cut == FEATURES:
        return state
    return upper_half(model, wanted.cut).features(state)


def _compare(wanted: Wanted, found: tf.Tensor, right: tf.Tensor) -> None:
    largest = float(tf.reduce_max(tf.abs(right))) or 1.0
    apart = float(tf.reduce_max(tf.abs(found - right))) / largest
    if not apart <= _TOLERANCE[wanted.dtype]:
        with _naming(wanted.cut):
            raise CannotKeep(
                f"features that are computed from it are off by {apart:.1e}; padding, "
                "or rounding, seems to count in this encoder"
            )
