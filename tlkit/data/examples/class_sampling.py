"""Class counts, class weights, and training splits with equal numbers per class."""

import dataclasses
import math

import numpy as np

from ...errors import DataError
from .random_access import labels_of, pick
from .splits import SPLIT_NAMES, Splits, check_seed, is_integer, random_order


def class_counts(
    splits: Splits, *, split: str = "train", verbose: int = 1
) -> dict[str, int]:
    """Counts the examples of each class.

    Args:
        splits: The data set. A stream, such as TFDS's, is read to its end.
        split: `"train"`, `"validation"` or `"test"`.
        verbose: 1 shows the progress of reading a stream, 0 is silent.

    Returns:
        The number of examples by the name of the label, in the order of the labels.

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
    """Computes weights that balance the classes, for `class_weight` of `fit`.

    By default the weight of a class is `examples / (classes * examples of the class)`,
    which is "balanced" in scikit-learn: the mean weight of the examples is 1. With
    `beta`, the weight is the inverse of the class's effective number of examples,
    `(1 - beta**n) / (1 - beta)`, scaled so that the weights of all classes sum to the
    number of classes (Cui et al. 2019, arXiv 1901.05555). The more examples a class
    has, the more they resemble each other, so further ones count less and less.

    Args:
        splits: The data set; its training split is counted, as by `class_counts`.
        beta: `None`, or a number in [0, 1). At 0 each class has weight 1; near 1 the
            weights are the inverse of the counts. The paper uses 0.9, 0.99, 0.999 or
            0.9999.
        verbose: As for `class_counts`.

    Returns:
        The weights by the index of the label, without classes that have no examples.

    Raises:
        DataError: `beta` is out of its range, or a label is not in `splits.labels`.

    Example:

    ```python
    weights = tlkit.data.class_weights(splits)
    weights  # {0: 1.2, 1: 0.86}
    report = tlkit.fit(model, splits, class_weight=weights)
    ```
    """
    if beta is not None and not (_is_number(beta) and 0 <= beta < 1):
        raise DataError(f"beta must be a number in [0, 1); got {beta!r}.")
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
    """Reduces the training split to a few examples of each class.

    Args:
        splits: The data set. The examples taken from a stream, such as TFDS's, are read
            into memory; images stay encoded.
        examples: How many examples of each class to take, at least 1; all of a smaller
            class.
        seed: Not negative. Decides which examples are taken, and their order.
        verbose: 1 shows the progress of reading a stream, 0 is silent.

    Returns:
        The same data set with a smaller training split, in a random order. The other
        splits do not change.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    few = tlkit.data.take_per_class(splits, 5)
    tlkit.data.class_counts(few)  # {"daisy": 5, "rose": 5}
    ```
    """
    _check_positive(examples, "examples")
    labels = _checked_labels(splits, "train", verbose)
    keys = _order_keys(len(labels), seed)
    members = _members(labels, keys, len(splits.labels))
    indices = np.concatenate([of_class[:examples] for of_class in members])
    indices = indices[np.argsort(keys[indices], kind="stable")]
    return dataclasses.replace(
        splits, train=pick(splits.train, indices, verbose=verbose)
    )


def balanced(
    splits: Splits,
    *,
    examples_per_class: int | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> Splits:
    """Balances the training split by repeating examples of small classes.

    Sampling happens once, controlled by the seed. Every epoch has the same examples in
    a different order, so activations of frozen blocks can be cached. Within a class,
    the numbers of repetitions differ by one at most.

    Args:
        splits: The data set. The training split of a stream, such as TFDS's, is read
            into memory, up to 1 GiB.
        examples_per_class: How many examples of each class an epoch has. Default: the
            size of the largest class, so that no example is left out.
        seed: Not negative.
        verbose: 1 shows the progress of reading a stream, 0 is silent.

    Returns:
        The same data set with another training split, in a random order, that has
        `examples_per_class` examples of each class that is not empty. The other splits
        do not change, so metrics on them hold for the true class frequencies.

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    tlkit.data.class_counts(splits)                       # {"daisy": 9, "rose": 4}
    tlkit.data.class_counts(tlkit.data.balanced(splits))  # {"daisy": 9, "rose": 9}
    ```
    """
    labels = _checked_labels(splits, "train", verbose)
    members = _members(labels, _order_keys(len(labels), seed), len(splits.labels))
    members = [of_class for of_class in members if len(of_class)]
    if examples_per_class is None:
        examples_per_class = max(map(len, members))
    _check_positive(examples_per_class, "examples_per_class")
    indices = np.concatenate([np.resize(m, examples_per_class) for m in members])
    indices = indices[random_order(len(indices), seed=seed)]
    return dataclasses.replace(
        splits, train=pick(splits.train, indices, verbose=verbose)
    )


def _effective_numbers(counts: np.ndarray, beta: float) -> np.ndarray:
    if beta == 0:
        return np.ones_like(counts)
    # Not 1 - beta**n, which loses most digits for a beta near 1.
    return np.expm1(counts * math.log(beta)) / (beta - 1)


def _counts(splits: Splits, split: str, verbose: int) -> np.ndarray:
    labels = _checked_labels(splits, split, verbose)
    return np.bincount(labels, minlength=len(splits.labels))


def _checked_labels(splits: Splits, split: str, verbose: int) -> np.ndarray:
    """Returns the labels of a split, int32 `[n]`; an unknown one raises an error."""
    if split not in SPLIT_NAMES or getattr(splits, split) is None:
        names = ", ".join(map(repr, splits.sizes))
        raise DataError(f"There is no split {split!r}. There is: {names}.")
    labels = labels_of(getattr(splits, split), verbose=verbose)
    wrong = (labels < 0) | (labels >= len(splits.labels))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise DataError(
            f"Example {index:,} of the {split} split has the label {labels[index]}; "
            f"with {len(splits.labels)} labels, they run from 0 to "
            f"{len(splits.labels) - 1}."
        )
    if not len(labels):
        raise DataError(f"The {split} split has no examples.")
    return labels


def _members(labels: np.ndarray, keys: np.ndarray, classes: int) -> list[np.ndarray]:
    """Returns the indices of the examples of each class, sorted by their keys."""
    order = np.lexsort([keys, labels])
    edges = np.searchsorted(labels[order], np.arange(classes + 1))
    return [order[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _order_keys(count: int, seed: int) -> np.ndarray:
    """Returns a random uint64 for each example, by which examples are sorted.

    The numbers depend only on `seed` and `count`, not on NumPy's version (NEP 19).
    """
    return np.random.PCG64([check_seed(seed), count, 1]).random_raw(count)


def _check_positive(number: int, name: str) -> None:
    if not is_integer(number):
        raise DataError(f"{name} must be an integer of 1 or more; got {number!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
