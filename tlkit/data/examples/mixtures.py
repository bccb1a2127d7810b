"""Mixtures: several data sets become one, each with a fraction of its examples."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .random_access import (
    Examples,
    examples_of,
    is_repeatable,
    map_examples,
    mark_repeatable,
    pick,
)
from .raw_values import raw_spec
from .splits import SPLIT_NAMES, Splits, check_seed, is_integer, random_order
from .tf_data import deterministic


def mixture(
    sources: Mapping[str, Splits] | Sequence[Splits],
    *,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    examples: int | None = None,
    seed: int = 0,
) -> Splits:
    """Mixes data sets of the same kind, each with a fraction of the training examples.

    Labels are matched by their names: the result has those of the first data set, then
    those that only the others have. Sampling happens once, controlled by the seed.
    Every epoch has the same examples in a different order, so activations of frozen
    blocks can be cached. Of a stream, such as TFDS's, the first examples are taken.

    Args:
        sources: The data sets, by name or in a sequence.
        weights: The fraction of each data set in the training examples, by the same
            names or in the same order: numbers above 0; only their ratios matter.
            Default: their sizes, so that every example occurs once.
        examples: How many training examples an epoch has. Default: the smallest number
            with which every example occurs at least once. Examples of data sets with
            large weights then occur several times.
        seed: Not negative.

    Returns:
        A data set with `examples` training examples, in a random order. Its validation
        and test splits are those of all data sets that have one, concatenated.

    Raises:
        DataError: There is no data set, they differ in kind, in shape or in dtype, or a
            weight is not a number above 0.

    Example:

    ```python
    splits = tlkit.data.mixture(
        {"ours": ours, "public": public}, weights={"ours": 1, "public": 3}, examples=800
    )
    splits.sizes["train"]  # 800
    ```
    """
    named = _named(sources)
    _check_alike(named)
    labels = tuple(dict.fromkeys(name for s in named.values() for name in s.labels))
    sizes = np.array([_size(splits.train, name) for name, splits in named.items()])
    counts = _counts(sizes, _read_weights(weights, named, sizes), examples)
    index = {label: number for number, label in enumerate(labels)}
    new = [np.array([index[x] for x in s.labels], np.int32) for s in named.values()]
    parts = [
        _relabeled(_draw(splits.train, size, count, check_seed(seed) + number), ids)
        for number, (splits, size, count, ids) in enumerate(
            zip(named.values(), sizes.tolist(), counts.tolist(), new, strict=True)
        )
    ]
    which = np.repeat(np.arange(len(parts)), counts)
    train = _interleaved(parts, which[random_order(len(which), seed=seed)])
    held_out = {}
    for name in SPLIT_NAMES[1:]:
        held_out[name] = _concatenated([getattr(s, name) for s in named.values()], new)
    return Splits(
        train=train,
        **held_out,
        labels=labels,
        kind=next(iter(named.values())).kind,
        skipped=tuple(entry for s in named.values() for entry in s.skipped),
    )


def _draw(
    dataset: tf.data.Dataset, size: int, count: int, seed: int
) -> tf.data.Dataset:
    """Draws `count` examples of a data set, which is repeated if it has fewer."""
    if examples_of(dataset) is not None:
        return pick(dataset, np.resize(random_order(size, seed=seed), count))
    drawn = dataset.repeat().take(count)
    return mark_repeatable(drawn) if is_repeatable(dataset) else drawn


def _relabeled(dataset: tf.data.Dataset, new_labels: np.ndarray) -> tf.data.Dataset:
    """Replaces each label by its entry in `new_labels`, int32 `[labels]`."""
    if (new_labels == np.arange(len(new_labels))).all():
        return dataset
    examples = examples_of(dataset)
    return map_examples(
        dataset,
        lambda raw, label: (raw, tf.gather(new_labels, label)),
        None if examples is None else new_labels[examples.labels],
    )


def _interleaved(parts: list[tf.data.Dataset], which: np.ndarray) -> tf.data.Dataset:
    """Takes the next example of part `which[0]`, then of part `which[1]`, …"""
    examples = [examples_of(part) for part in parts]
    if None in examples:
        dataset = _choose(parts, which)
        repeatable = all(map(is_repeatable, parts))
        return mark_repeatable(dataset) if repeatable else dataset
    labels, within = np.zeros(len(which), np.int32), np.zeros(len(which), np.int64)
    for number, part in enumerate(examples):
        positions = np.flatnonzero(which == number)
        within[positions] = np.arange(len(positions))
        labels[positions] = part.labels

    def read(indices: np.ndarray) -> tf.data.Dataset:
        chosen, inner = which[indices], within[indices]
        drawn = [part.read(inner[chosen == n]) for n, part in enumerate(examples)]
        return _choose(drawn, chosen)

    stream = lambda: _choose([part.dataset() for part in examples], which)
    return Examples(labels, read, stream).dataset()


def _choose(parts: list[tf.data.Dataset], which: np.ndarray) -> tf.data.Dataset:
    choices = tf.data.Dataset.from_tensor_slices(which.astype(np.int64))
    dataset = tf.data.Dataset.choose_from_datasets(parts, choices)
    known = tf.data.experimental.assert_cardinality(len(which))
    return deterministic(dataset.apply(known))


def _concatenated(
    datasets: list[tf.data.Dataset | None], new_labels: list[np.ndarray]
) -> tf.data.Dataset | None:
    parts = [
        _relabeled(dataset, labels)
        for dataset, labels in zip(datasets, new_labels, strict=True)
        if dataset is not None
    ]
    if not parts:
        return None
    sizes = [int(part.cardinality()) for part in parts]
    return _interleaved(parts, np.repeat(np.arange(len(parts)), sizes))


def _named(sources: Mapping[str, Splits] | Sequence[Splits]) -> dict[str, Splits]:
    if isinstance(sources, Splits):
        sources = [sources]
    if not isinstance(sources, Mapping):
        sources = {str(number): splits for number, splits in enumerate(sources)}
    if not sources:
        raise DataError("A mixture needs at least one data set; got none.")
    for name, splits in sources.items():
        if not isinstance(splits, Splits):
            raise DataError(
                f"A mixture is of tlkit.data.Splits; {name!r} is {type(splits)}."
            )
    return dict(sources)


def _check_alike(named: dict[str, Splits]) -> None:
    """Raises a `DataError` unless all examples have one kind, shape and dtype."""
    first_name, first = next(iter(named.items()))
    expected = (first.kind, raw_spec(first.train))
    for name, splits in named.items():
        for split in splits.sizes:
            form = (splits.kind, raw_spec(getattr(splits, split)))
            if form[0] != expected[0] or not _equal(form[1], expected[1]):
                raise DataError(
                    "Data sets that are mixed must be of the same kind, shape and "
                    f"dtype. {first_name!r} has {_words(expected)}; the {split} split "
                    f"of {name!r} has {_words(form)}."
                )


def _equal(one: tf.TensorSpec, other: tf.TensorSpec) -> bool:
    if one.dtype != other.dtype or one.shape.rank != other.shape.rank:
        return False
    return one.shape.rank is None or list(one.shape) == list(other.shape)


def _words(form: tuple[str, tf.TensorSpec]) -> str:
    return f"{form[0]} of {form[1].dtype.name} {form[1].shape}"


def _size(dataset: tf.data.Dataset, name: str) -> int:
    size = int(dataset.cardinality())
    if size < 1:
        raise DataError(
            f"The training split of {name!r} has no known number of examples of 1 or "
            "more. Type: dataset.apply(tf.data.experimental.assert_cardinality(n))"
        )
    return size


def _read_weights(weights, named: dict[str, Splits], sizes: np.ndarray) -> np.ndarray:
    """Returns the fraction of each data set, float64 `[sources]`, of sum 1."""
    if weights is None:
        weights = sizes
    elif isinstance(weights, Mapping):
        if set(weights) != set(named):
            raise DataError(
                f"weights must have one for each of {', '.join(map(repr, named))}; got "
                f"{', '.join(map(repr, weights)) or 'none'}."
            )
        weights = [weights[name] for name in named]
    numbers = np.asarray(weights, np.float64)
    if numbers.shape != (len(named),):
        raise DataError(
            f"weights must have one for each of {len(named)} data sets; got "
            f"{weights!r}."
        )
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise DataError(
            "weights must be numbers above 0 (leave out a data set with weight 0); got "
            f"{weights!r}."
        )
    return numbers / numbers.sum()


def _counts(
    sizes: np.ndarray, fractions: np.ndarray, examples: int | None
) -> np.ndarray:
    """Computes the training examples of each data set, int64 `[sources]`."""
    if examples is None:
        total = (sizes / fractions).max()
        return np.maximum(np.rint(fractions * total).astype(np.int64), sizes)
    if not is_integer(examples, len(sizes)):
        raise DataError(
            "examples must be an integer of at least one for each data set, "
            f"{len(sizes)} or more; got {examples!r}."
        )
    counts = np.floor(fractions * examples).astype(np.int64)
    by_remainder = np.argsort(counts - fractions * examples, kind="stable")
    counts[by_remainder[: examples - counts.sum()]] += 1
    if not counts.all():
        raise DataError(
            f"Of {examples:,} examples, the data set of the smallest weight would get "
            "none. Type a larger number, such as "
            f"examples={math.ceil(1 / fractions.min()):,}."
        )
    return counts
