"""One pass over all examples, which computes the activations at one or more cuts.

Before the activations are used, they are verified: the remainder of the model has to
compute the same features from them as from the examples themselves.

Tested in tests/training/activations/test_cached_activations.py.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...models import FEATURES, remainder_of, split
from ...progress import progress
from ..feeds.array_rows import Lengths
from ..feeds.feed import Feed
from ..plans.cache_plan import CachePlan
from .cached_rows import CachedRows, Column

# The largest allowed rounding error of the features, divided by the largest feature.
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2}


class NotCacheableError(Exception):
    """Activations cannot be cached; the message is the reason. Training continues.

    Attributes:
        cut: The cut that the error concerns; `None` for all.
    """

    cut: int | None = None


def compute_activations(
    model: keras.Model,
    prefix: Callable,
    feed: Feed,
    planned: Sequence[CachePlan],
    create: Callable[[CachePlan, Any, Sequence[Column]], CachedRows],
    *,
    what: str,
    verbose: int,
) -> tuple[list[CachedRows], Any, Any]:
    """Computes the activations of all examples at several cuts, in one pass.

    Args:
        model: The complete model.
        prefix: A `tf.function` of the inputs that returns the tensors at each cut.
        feed: The examples.
        planned: The cuts and dtypes.
        create: Creates the empty rows of a cut, from a nest of specs and the columns.
        what: The label of the progress bar.
        verbose: 0 for silence.

    Returns:
        The rows of each cut; and all labels and weights, in the order of the data.

    Raises:
        NotCacheableError: The activations have no axis of examples, exceed the range of
            their dtype, or depend on the padding.
        OSError: The disk is full.
    """
    order, dataset = np.arange(feed.examples), feed.batches(None)
    if feed.lengths is not None:
        order, dataset = feed.longest_first()
    function = prefix.get_concrete_function(dataset.element_spec[0])
    stores: list[CachedRows] = []
    for one, specs in zip(planned, function.structured_outputs, strict=True):
        with _errors_at(one.cut):
            columns = _columns(specs, one.dtype, feed.lengths)
            stores.append(create(one, specs, columns))
    skipped = _written_batches(stores, feed)
    if skipped:
        dataset = feed.batches(None, skip=skipped)
    first = last = None
    marks, done = [], skipped * (feed.batch_size or 0)
    total = feed.steps - skipped if feed.steps not in (None, math.inf) else None
    for inputs, *mark in progress(dataset, total=total, what=what, verbose=verbose):
        rows = order[done : done + len(tf.nest.flatten(inputs)[0])]
        if first is None or not _are_written(stores, rows):
            states = function(inputs)
            for one, store, state in zip(planned, stores, states, strict=True):
                with _errors_at(one.cut):
                    _write(store, rows, state)
        last = rows, inputs
        if first is None:
            first = last
            _verify_remainder(model, planned, stores, *first)
        marks.append(tf.nest.map_structure(np.asarray, mark))
        done += len(rows)
    if done != feed.examples:
        raise NotCacheableError(
            f"the data has {done:,} examples instead of {feed.examples:,}"
        )
    if feed.lengths is not None:
        rows, inputs = _mixed_batch(first, last, feed.lengths)
        _verify_padding(model, planned, stores, rows, function(inputs))
    if skipped:
        return stores, *feed.labels_and_weights()
    labels, weights = tf.nest.map_structure(lambda *m: np.concatenate(m), *marks)
    back = np.argsort(order)
    labels, weights = tf.nest.map_structure(lambda m: m[back], (labels, weights))
    return stores, labels, weights


def _are_written(stores: Sequence[CachedRows], rows: np.ndarray) -> bool:
    """Returns whether an interrupted run has written these rows at all cuts."""
    return all(one.written is not None and one.written[rows].all() for one in stores)


def _written_batches(stores: Sequence[CachedRows], feed: Feed) -> int:
    """Returns how many of the first batches are written and need not be loaded.

    At least one batch is loaded, to verify the activations. Texts are all loaded: that
    is cheap, and the verification needs the longest ones.
    """
    size = feed.batch_size
    if feed.lengths is not None or not size or any(s.written is None for s in stores):
        return 0
    if feed.steps != math.ceil(feed.examples / size):
        return 0  # several views, each of which ends with a smaller batch
    missing = [np.flatnonzero(~store.written) for store in stores]
    first = min((int(rows[0]) for rows in missing if len(rows)), default=feed.examples)
    return min(first // size, feed.steps - 1)


@contextlib.contextmanager
def _errors_at(cut: int) -> Iterator[None]:
    """Sets the attribute `cut` of a `NotCacheableError` raised in the context."""
    try:
        yield
    except NotCacheableError as error:
        error.cut = cut
        raise


def _columns(specs: Any, dtype: str, lengths: Lengths | None) -> list[Column]:
    """Returns the columns at a cut: the tensor that passes it, then the inputs."""
    missing = (0, *(lengths.missing if lengths is not None else ()))
    return [
        _column(spec, dtype, missing[i] if i < len(missing) else 0, lengths)
        for i, spec in enumerate(tf.nest.flatten(specs))
    ]


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


def _write(store: CachedRows, rows: np.ndarray, state: Any) -> None:
    values = [leaf.numpy() for leaf in tf.nest.flatten(state)]
    if any(len(value) != len(rows) for value in values):
        raise NotCacheableError("the tensor at the cut has no axis of examples")
    pairs = zip(values, store.columns, strict=True)
    store.write(rows, [_cast(value, column.dtype) for value, column in pairs])


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
    # Together as many as in the first batch, since functions are traced for its size.
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
    planned: Sequence[CachePlan],
    stores: Sequence[CachedRows],
    rows: np.ndarray,
    inputs: Any,
) -> None:
    """Compares the features from the activations with those from the inputs."""
    pairs = zip(planned, stores, strict=True)
    inside = [(one, store) for one, store in pairs if one.cut != FEATURES]
    if inside:
        trunk, _ = split(model)
        expected = trunk(inputs, training=False)
        for one, store in inside:
            _compare(one, _features(model, one, store.gather(rows)), expected)


def _verify_padding(
    model: keras.Model,
    planned: Sequence[CachePlan],
    stores: Sequence[CachedRows],
    rows: np.ndarray,
    states: Sequence[Any],
) -> None:
    """Verifies that padding does not change the features of texts.

    Compares the features of cached rows with those of `states`, which were computed
    from the same texts in a single batch of the longest and the shortest ones.

    Raises:
        NotCacheableError: They differ.
    """
    for one, store, state in zip(planned, stores, states, strict=True):
        expected = _features(model, one, state)
        _compare(one, _features(model, one, store.gather(rows)), expected)


def _features(model: keras.Model, planned: CachePlan, state: Any) -> tf.Tensor:
    if planned.cut == FEATURES:
        return state
    return remainder_of(model, planned.cut).features(state)


def _compare(planned: CachePlan, features: tf.Tensor, expected: tf.Tensor) -> None:
    largest = float(tf.reduce_max(tf.abs(expected))) or 1.0
    error = float(tf.reduce_max(tf.abs(features - expected))) / largest
    if not error <= _TOLERANCE[planned.dtype]:
        with _errors_at(planned.cut):
            raise NotCacheableError(
                f"the features that are computed from it differ by {error:.1e}; this "
                "encoder seems to depend on padding or rounding"
            )
