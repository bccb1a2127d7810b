"""How often the examples of each class are trained on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ...errors import DataError
from .random_access import labels_of, pick
from .splits import SPLIT_NAMES, Splits, check_seed, random_order


def class_counts(
    splits: Splits, *, split: str = "train", verbose: int = 1
) -> dict[str, int]:
    """Counts the examples of each class.

    Args:
        splits: The data set. Of one that cannot tell the classes alone, such as TFDS's,
            all examples are read.
        split: `"train"`, `"validation"` or `"test"`.
        verbose: 1 shows the progress of that, 0 is silent.

    Returns:
        How many there are, by the names of the labels in their order; 0 where there is
        none.

    Raises:
        DataError: There is no such split, or a label is not in `splits.labels`.

    Example:

    ```python
    tlkit.data.class_counts(splits)   # {"daisy": 633, "rose": 641}
    ```
    """
    counts = _counts(splits, split, verbose)
    return dict(zip(splits.labels, counts.tolist(), strict=True))


def class_weights(
    splits: Splits, *, beta: float | None = None, verbose: int = 1
) -> dict[int, float]:
    """Weights under which every class counts alike, for `class_weight` of `fit`.

    By default a class weighs `examples / (classes * examples of the class)`, which is
    "balanced" in scikit-learn: examples weigh 1 on average. With `beta` it is
    the inverse of the effective number of its examples, `(1 - beta**n) / (1 - beta)`,
    scaled so that the weights of all classes sum to their number (Cui et al. 2019,
    arXiv 1901.05555): large classes overlap with themselves, so further examples of
    them add less and less.

    Args:
        splits: The data set; its training split is counted, as by `class_counts`.
        beta: `None`, or from 0 (all classes weigh 1) up to but not 1 (the inverse of
            their counts). The paper takes 0.9, 0.99, 0.999 or 0.9999.
        verbose: As for `class_counts`.

    Returns:
        The weights by the index of the label, without classes that have no examples.

    Raises:
        DataError: `beta` is out of its range, or a label is not in `splits.labels`.

    Example:

    ```python
    weights = tlkit.data.class_weights(splits)
    tlkit.fit(model, splits, class_weight=weights)
    ```
    """
    if beta is not None and not (_is_number(beta) and 0 <= beta < 1):
        raise DataError(f"beta must be a number from 0 up to, not 1; got {beta!r}.")
    counts = _counts(splits, "train", verbose)
    present = np.flatnonzero(counts)
    counts = counts[present].astype(np.float64)
    if beta is None:
        weights = counts.sum() / (len(counts) * counts)
    else:
        weights = 1 / _effective_numbers(counts, beta)
        weights *= len(counts) / weights.sum()
    return dict(zip(present.tolist(), weights.tolist(), strict=True))


def take_per_class(
    splits: Splits, examples: int, *, seed: int = 0, verbose: int = 1
) -> Splits:
    """Keeps a few examples of each class to train on.

    Args:
        splits: The data set. If it cannot read examples by their place, such as TFDS's,
            those that are kept are held in memory, as they are: pictures encoded.
        examples: How many of each class to keep, at least 1. A class that has less
            keeps all it has.
        seed: Not negative. Decides which, and their order.
        verbose: 1 shows the progress of reading them, 0 is silent.

    Returns:
        The same data set with a smaller training split, in a random order. The other
        splits are as they were.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    few = tlkit.data.take_per_class(splits, 5)
    report = tlkit.fit(model, few)
    ```
    """
    _check_positive(examples, "examples")
    labels = _checked_labels(splits, "train", verbose)
    keys = _order_keys(len(labels), seed)
    members = _members(labels, keys, len(splits.labels))
    kept = np.concatenate([own[:examples] for own in members])
    places = kept[np.argsort(keys[kept], kind="stable")]
    return dataclasses.replace(
        splits, train=pick(splits.train, places, verbose=verbose)
    )


def balanced(
    splits: Splits,
    *,
    examples_per_class: int | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> Splits:
    """Trains on every class equally often, by repeating examples of small classes.

    What is repeated and, where a class has more than it gives, what is left out is
    drawn once, by the seed: every epoch has the same examples in another order, so
    that what a frozen encoder makes of them can be kept. Within a class, all examples
    are repeated equally often, or once more than others.

    Args:
        splits: The data set. If it cannot read examples by their place, such as TFDS's,
            the training split is held in memory, up to 1 GiB of it.
        examples_per_class: How many each class gives to an epoch. Default: as many as
            the largest class has, so that nothing is left out.
        seed: Not negative.
        verbose: 1 shows the progress of reading them, 0 is silent.

    Returns:
        The same data set with another training split, in a random order, of
        `examples_per_class` times the classes that have examples. The other splits are
        as they were: figures on them are those of the true shares.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    splits = tlkit.data.balanced(splits)
    splits.sizes["train"]   # classes times the size of the largest
    ```
    """
    labels = _checked_labels(splits, "train", verbose)
    members = _members(labels, _order_keys(len(labels), seed), len(splits.labels))
    members = [own for own in members if len(own)]
    if examples_per_class is None:
        examples_per_class = max(map(len, members))
    _check_positive(examples_per_class, "examples_per_class")
    places = np.concatenate([np.resize(own, examples_per_class) for own in members])
    places = places[random_order(len(places), seed=seed)]
    return dataclasses.replace(
        splits, train=pick(splits.train, places, verbose=verbose)
    )


def _effective_numbers(counts: np.ndarray, beta: float) -> np.ndarray:
    if beta == 0:
        return np.ones_like(counts)
    # Not 1 - beta**n: for a beta near 1 that has few digits left.
    return np.expm1(counts * math.log(beta)) / (beta - 1)


def _counts(splits: Splits, split: str, verbose: int) -> np.ndarray:
    labels = _checked_labels(splits, split, verbose)
    return np.bincount(labels, minlength=len(splits.labels))


def _checked_labels(splits: Splits, split: str, verbose: int) -> np.ndarray:
    """int32 `[n]`, the labels of a split, all of which have a name."""
    if split not in SPLIT_NAMES or getattr(splits, split) is None:
        there = ", ".join(map(repr, splits.sizes))
        raise DataError(f"There is no split {split!r}. There is: {there}.")
    labels = labels_of(getattr(splits, split), verbose=verbose)
    wrong = (labels < 0) | (labels >= len(splits.labels))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"Example {place:,} of the {split} split has the label {labels[place]}; "
            f"with {len(splits.labels)} labels, they run from 0 to "
            f"{len(splits.labels) - 1}."
        )
    if not len(labels):
        raise DataError(f"The {split} split has no examples.")
    return labels


def _members(labels: np.ndarray, keys: np.ndarray, classes: int) -> list[np.ndarray]:
    """The places of the examples of each class, in the order of their keys."""
    order = np.lexsort([keys, labels])
    edges = np.searchsorted(labels[order], np.arange(classes + 1))
    return [order[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _order_keys(count: int, seed: int) -> np.ndarray:
    """Raw bits, which are the same with every version of NumPy (NEP 19)."""
    return np.random.PCG64([check_seed(seed), count, 1]).random_raw(count)


def _check_positive(number: int, name: str) -> None:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or number < 1:
        raise DataError(f"{name} must be an integer of 1 or more; got {number!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
