"""One pass over all examples, which computes the activations at one or more cuts.

Before the activations are used, they are verified: the remainder of the model has to
compute the same features from them as from the examples themselves.

Tested in tests/training/activations/test_cached_activations.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...models import FEATURES, prefix_function, remainder_of, split
from ...progress import progress
from ..feeds.array_rows import Lengths
from ..feeds.feed import Feed
from .cached_rows import CachedRows, Column

# The largest error of the features by rounding, as a fraction of the largest feature.
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2}


class NotCacheableError(Exception):
    """Says why activations cannot be cached. Training continues without a cache.

    Attributes:
        cut: The cut that the error concerns; `None` for all.
    """

    cut: int | None = None


@dataclasses.dataclass(frozen=True)
class CacheRequest:
    """A request for the activations at one cut.

    Attributes:
        cut: `FEATURES`, or the index of the encoder's section behind the cut.
        dtype: `"float32"` or `"float16"`, in which they are stored.
        create: Creates the empty rows from a nest of specs and the columns.
    """

    cut: int
    dtype: str
    create: Callable[[Any, Sequence[Column]], CachedRows]


class FrozenPrefix:
    """The prefix of a model, which returns the activations at some cuts.

    It holds copies of the weights, as they were when it was created. It is traced once
    for all data of the same spec.

    Args:
        model: The whole model.
        cuts: The cuts, as in `CacheRequest`.
    """

    def __init__(self, model: keras.Model, cuts: Sequence[int]):
        self.model, self.cuts = model, tuple(cuts)
        self._prefix = prefix_function(model, cuts)
        self._traced: dict[str, Any] = {}

    def traced(self, spec: Any) -> Any:
        """Returns the concrete function for inputs of a spec."""
        key = repr(spec)
        if key not in self._traced:
            function = tf.function(self._prefix, autograph=False)
            self._traced[key] = function.get_concrete_function(spec)
        return self._traced[key]


def compute_activations(
    prefix: FrozenPrefix,
    feed: Feed,
    requests: Sequence[CacheRequest],
    *,
    what: str,
    verbose: int,
) -> tuple[list[CachedRows], Any, Any]:
    """Computes the activations of all examples at several cuts, in one pass.

    Args:
        prefix: The prefix of the model, with the cuts of `requests`.
        feed: The examples.
        requests: One request for each cut.
        what: The label of the progress bar.
        verbose: 0 for silence.

    Returns:
        The rows of each request; and all labels and weights, in the order of the data.

    Raises:
        NotCacheableError: The activations have no axis of examples, exceed the range of
            their dtype, or depend on the padding.
        OSError: The disk is full.
    """
    order, dataset = np.arange(feed.examples), feed.batches(None)
    if feed.lengths is not None:
        order, dataset = feed.longest_first()
    function = prefix.traced(dataset.element_spec[0])
    stores: list[CachedRows] = []
    first = last = None
    marks, done = [], 0
    total = feed.steps if feed.steps not in (None, math.inf) else None
    for inputs, *mark in progress(dataset, total=total, what=what, verbose=verbose):
        states = function(inputs)
        rows = order[done : done + len(tf.nest.flatten(inputs)[0])]
        if not stores:
            pairs = zip(requests, function.structured_outputs, strict=True)
            stores = [_create(request, spec, feed.lengths) for request, spec in pairs]
        for request, store, state in zip(requests, stores, states, strict=True):
            _write(request, store, rows, state)
        last = rows, inputs
        if first is None:
            first = last
            _verify_remainder(prefix.model, requests, stores, *first)
        marks.append(tf.nest.map_structure(np.asarray, mark))
        done += len(rows)
    if done != feed.examples:
        raise NotCacheableError(
            f"the data has {done:,} examples instead of {feed.examples:,}"
        )
    if feed.lengths is not None:
        rows, inputs = _mixed_batch(first, last, feed.lengths)
        _verify_padding(prefix.model, requests, stores, rows, function(inputs))
    labels, weights = tf.nest.map_structure(lambda *m: np.concatenate(m), *marks)
    back = np.argsort(order)
    labels, weights = tf.nest.map_structure(lambda m: m[back], (labels, weights))
    return stores, labels, weights


@contextlib.contextmanager
def _errors_at(cut: int) -> Iterator[None]:
    """Adds the cut to an error."""
    try:
        yield
    except NotCacheableError as error:
        error.cut = cut
        raise


def _create(request: CacheRequest, specs: Any, lengths: Lengths | None) -> CachedRows:
    missing = (0, *(lengths.missing if lengths is not None else ()))
    with _errors_at(request.cut):
        columns = [
            _column(spec, request.dtype, missing[i] if i < len(missing) else 0, lengths)
            for i, spec in enumerate(tf.nest.flatten(specs))
        ]
        return request.create(specs, columns)


def _column(spec, dtype: str, missing: int, lengths: Lengths | None) -> Column:
    name = spec.dtype.name
    stored = dtype if spec.dtype.is_floating else name
    if spec.shape.rank is None or spec.shape.rank < 1:
        raise NotCacheableError("the tensor at the cut has no axis of examples")
    unknown = [axis for axis, size in enumerate(spec.shape) if axis and size is None]
    if not unknown:
        return Column(stored, tuple(spec.shape[1:]), read_as=name)
    if unknown != [1] or lengths is None:
        raise NotCacheableError("the shape of the tensor at the cut is not constant")
    return Column(stored, tuple(spec.shape[2:]), True, missing, name)


def _write(
    request: CacheRequest, store: CachedRows, rows: np.ndarray, state: Any
) -> None:
    values = [leaf.numpy() for leaf in tf.nest.flatten(state)]
    with _errors_at(request.cut):
        if any(len(value) != len(rows) for value in values):
            raise NotCacheableError("the tensor at the cut has no axis of examples")
        pairs = zip(values, store.columns, strict=True)
        values = [_cast(value, column.dtype) for value, column in pairs]
    store.write(rows, values)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if cast.dtype == np.float16 and not np.isfinite(cast).all():
        raise NotCacheableError(
            f"values up to {np.abs(values).max():.3g} do not fit in float16"
        )
    return cast


# === Verification ===


def _mixed_batch(first, last, lengths: Lengths) -> tuple[np.ndarray, Any]:
    """Returns the rows and inputs of a batch of the longest and shortest texts.

    Args:
        first: Rows and inputs of the first batch, which has the longest texts.
        last: Those of the last batch.
        lengths: How texts are padded.
    """
    (rows, inputs), (short_rows, short_inputs) = first, last
    # As many as in the first batch: everything is traced for this size.
    short = min(len(short_rows), max(1, len(rows) // 2))
    long = max(1, len(rows) - short)

    def merged(long_texts, short_texts, missing):
        padding = [[0, 0], [0, long_texts.shape[1] - short_texts.shape[1]]]
        padded = tf.pad(short_texts[-short:], padding, constant_values=missing)
        return tf.concat([long_texts[:long], padded], 0)

    columns = zip(
        tf.nest.flatten(inputs),
        tf.nest.flatten(short_inputs),
        lengths.missing,
        strict=True,
    )
    flat = [merged(*column) for column in columns]
    mixed_rows = np.concatenate([rows[:long], short_rows[-short:]])
    return mixed_rows, tf.nest.pack_sequence_as(inputs, flat)


def _verify_remainder(
    model: keras.Model,
    requests: Sequence[CacheRequest],
    stores: Sequence[CachedRows],
    rows: np.ndarray,
    inputs: Any,
) -> None:
    """Compares the features from the activations with those from the inputs."""
    pairs = zip(requests, stores, strict=True)
    inside = [(request, store) for request, store in pairs if request.cut != FEATURES]
    if inside:
        trunk, _ = split(model)
        expected = trunk(inputs, training=False)
        for request, store in inside:
            features = _features(model, request, store.gather(rows))
            _compare(request, features, expected)


def _verify_padding(
    model: keras.Model,
    requests: Sequence[CacheRequest],
    stores: Sequence[CachedRows],
    rows: np.ndarray,
    states: Sequence[Any],
) -> None:
    """Compares the features from activations computed with less and more padding."""
    for request, store, state in zip(requests, stores, states, strict=True):
        expected = _features(model, request, state)
        features = _features(model, request, store.gather(rows))
        _compare(request, features, expected)


def _features(model: keras.Model, request: CacheRequest, state: Any) -> tf.Tensor:
    if request.cut == FEATURES:
        return state
    return remainder_of(model, request.cut).features(state)


def _compare(request: CacheRequest, features: tf.Tensor, expected: tf.Tensor) -> None:
    largest = float(tf.reduce_max(tf.abs(expected))) or 1.0
    error = float(tf.reduce_max(tf.abs(features - expected))) / largest
    if not error <= _TOLERANCE[request.dtype]:
        with _errors_at(request.cut):
            raise NotCacheableError(
                f"the features that are computed from it differ by {error:.1e}; this "
                "encoder seems to depend on padding or rounding"
            )
