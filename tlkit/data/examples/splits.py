"""`Splits`: a data set in its three splits, and the division of examples into them.

The division is stratified and seeded, and the same on every platform.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ...errors import DataError

_NAMED = 10  # how many paths a warning names


@dataclass(frozen=True)
class Skipped:
    """One example that a loader left out, with the reason.

    Attributes:
        path: Its file; for data in memory, the loader's argument, such as `"x"`.
        reason: Why it cannot be used.
        row: Its row in the file, as a spreadsheet counts: the header is row 1. In
            memory, its index. `None` if the file has only this example.
    """

    path: str
    reason: str
    row: int | None = None

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.path}: {self.reason}"
        return f"{self.path}, row {self.row}: {self.reason}"


class SkippedWarning(UserWarning):
    """Examples were left out of the data; `splits.skipped` lists them."""


@dataclass(frozen=True, repr=False)
class Splits:
    """A data set in its three splits, ready for `tlkit.fit`.

    Each split is a plain `tf.data.Dataset`: not batched, deterministic, of known
    cardinality. Its elements are pairs `(raw, label)`. The label is an int32 scalar,
    an index into `labels`. The raw value depends on `kind`:

    * `"image"`: a scalar string, the bytes of an encoded image (JPEG, PNG, GIF, BMP,
      WebP);
    * `"text"`: a scalar string, a text in UTF-8, or a string tensor `[2]`, a pair;
    * `"array"`: an array of numbers.

    The splits of most loaders also have random access: `fit` reads their examples by
    index, shuffles all of them, and caches activations. A dataset that is derived from
    a split, such as `splits.train.map(f)`, is read as a stream instead: it is shuffled
    within a buffer, and `cache="auto"` of `fit` caches nothing.

    Attributes:
        train: The training examples, in a seeded random order.
        validation: The validation examples, or `None`.
        test: The test examples, or `None`.
        labels: The names of the classes, by their index.
        kind: `"image"`, `"text"` or `"array"`.
        skipped: The examples that the loader left out, with reasons.

    Example:

    ```python
    splits = tlkit.data.arrays(x, y, labels=["cat", "dog"])
    splits        # Splits(array: train 80, validation 10, test 10; 2 labels: …)
    splits.sizes  # {"train": 80, "validation": 10, "test": 10}
    ```
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    labels: tuple[str, ...]
    kind: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples in each split that is not `None`, by its name."""
        splits = {name: getattr(self, name) for name in SPLIT_NAMES}
        return {
            name: int(dataset.cardinality())
            for name, dataset in splits.items()
            if dataset is not None
        }

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size:,}" for name, size in self.sizes.items())
        skipped = f"; skipped {len(self.skipped):,}" if self.skipped else ""
        shown = [repr(label) for label in self.labels[:_NAMED]]
        more = len(self.labels) - len(shown)
        labels = ", ".join(shown) + (f", … and {more:,} more" if more else "")
        return (
            f"Splits({self.kind}: {sizes}{skipped}; "
            f"{len(self.labels):,} labels: {labels})"
        )


SPLIT_NAMES = ("train", "validation", "test")


def warn_skipped(skipped: Sequence[Skipped], what: str) -> None:
    """Warns once that examples were left out, and names the first of them.

    Args:
        skipped: The examples; if there is none, there is no warning.
        what: The examples in the plural, such as `"images"`.
    """
    if not skipped:
        return
    lines = [f"  {entry}" for entry in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
        lines.append(f"  … and {len(skipped) - _NAMED:,} more: see splits.skipped")
    warnings.warn(
        f"Skipped {len(skipped):,} {what} that cannot be used:\n" + "\n".join(lines),
        SkippedWarning,
        stacklevel=3,
    )


def stratified_split(
    labels: np.ndarray, held_out: Sequence[float | int], *, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Divides examples so that every split has each class in the same proportion.

    Every class keeps at least one example for training, so a class with a single
    example is in no other split. A class with more examples than there are splits to
    hold out (three or more, for validation and test) is in every split that is large
    enough to have one example of each such class.

    Args:
        labels: `[n]` integers, the class of each example.
        held_out: The size of each split to hold out: a fraction as a float in (0, 1),
            or a number of examples as an int, or 0 for none. A fraction is rounded to
            the nearest number of examples, but not to 0.
        seed: Not negative. The same seed gives the same split, with every version of
            NumPy and on every machine.

    Returns:
        `len(held_out) + 1` arrays of sorted int64 indices into `labels`: first the
        training examples, then each held out split. Each index occurs once in total.

    Raises:
        DataError: A size is negative, or together they leave too little to train on.

    Example:

    ```python
    labels = np.array([0, 1] * 50)
    train, validation, test = tlkit.data.stratified_split(labels, (0.1, 0.1))
    len(train), len(validation), len(test)  # (80, 10, 10)
    ```
    """
    labels = np.asarray(labels)
    classes, members, class_sizes = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    totals = _totals(held_out, len(labels))
    counts = _counts(class_sizes, totals)
    # Shuffled by sorting raw bits, not by Generator.permutation: NumPy keeps the bits
    # of a BitGenerator stable for ever, but not the methods of a Generator (NEP 19).
    keys = np.random.PCG64(check_seed(seed)).random_raw(len(labels))
    splits: list[list[np.ndarray]] = [[] for _ in range(len(totals) + 1)]
    for index in range(len(classes)):
        of_class = np.flatnonzero(members == index)
        of_class = of_class[np.argsort(keys[of_class], kind="stable")]
        start = 0
        for split, count in enumerate(counts[:, index], start=1):
            splits[split].append(of_class[start : start + count])
            start += count
        splits[0].append(of_class[start:])
    return tuple(_sorted(parts) for parts in splits)


def random_order(count: int, *, seed: int = 0) -> np.ndarray:
    """Returns a seeded permutation of `range(count)`, the same on every platform."""
    keys = np.random.PCG64([check_seed(seed), count]).random_raw(count)
    return np.argsort(keys, kind="stable")


def is_integer(value: object, minimum: int = 1) -> bool:
    """Returns whether a value is an integer, not a bool, of at least `minimum`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= minimum


def check_seed(seed: int) -> int:
    """Returns the seed, or raises a `DataError` if it is not an int of 0 or more."""
    if not is_integer(seed, 0):
        raise DataError(f"seed must be an integer of 0 or more; got {seed!r}.")
    return int(seed)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))


def check_size(size: float | int) -> float | int:
    """Returns the size of a split, or raises a `DataError` if it is not valid."""
    if is_integer(size, 0):
        return int(size)
    if isinstance(size, float | np.floating) and 0 <= size < 1:
        return float(size)
    raise DataError(
        "The size of a split is a fraction of the examples in [0, 1) (a float), or a "
        f"number of examples (an int); got {size!r}."
    )


def _totals(held_out: Sequence[float | int], examples: int) -> list[int]:
    """Converts the sizes of the held out splits to numbers of examples."""
    totals = []
    for size in map(check_size, held_out):
        if isinstance(size, float) and size:
            size = max(1, int(size * examples + 0.5))
        totals.append(int(size))
    return totals


def _counts(class_sizes: np.ndarray, totals: list[int]) -> np.ndarray:
    """Computes each class's examples in each held out split: `[splits, classes]`."""
    later = sum(total > 0 for total in totals)
    examples = int(class_sizes.sum())
    # Each class keeps one example for training.
    spare = class_sizes - 1
    if sum(totals) > spare.sum():
        tiny = examples <= len(class_sizes) + len(totals)
        raise DataError(
            f"The splits to hold out take {sum(totals)} of {examples} examples, but "
            f"each of the {len(class_sizes)} classes must keep one for training. "
            + ("Add examples, or type" if tiny else "Type smaller sizes, such as")
            + " validation=0, test=0."
        )
    everywhere = class_sizes > later
    counts = np.zeros((len(totals), len(class_sizes)), np.int64)
    for split, total in enumerate(totals):
        if not total:
            continue
        later -= 1
        # Each class reserves one example for each later split, unless this split would
        # become too small.
        limit = spare - np.where(everywhere, later, 0)
        if limit.sum() < total:
            limit = spare
        counts[split] = _apportion(
            total * class_sizes / examples, total, limit, everywhere
        )
        spare = spare - counts[split]
    return counts


def _apportion(
    quotas: np.ndarray, total: int, limit: np.ndarray, everywhere: np.ndarray
) -> np.ndarray:
    """Rounds quotas to integers of a given sum, by their largest remainders.

    Args:
        quotas: float `[classes]`, the exact number of examples of each class.
        total: The sum, at most `limit.sum()`.
        limit: int `[classes]`, the most examples of each class.
        everywhere: bool `[classes]`, whether a class gets at least one, if the total
            allows it.
    """
    counts = np.minimum(np.floor(quotas).astype(np.int64), limit)
    counts = np.maximum(counts, np.minimum(everywhere, limit))
    while counts.sum() < total:
        counts[np.argmax(np.where(counts < limit, quotas - counts, -np.inf))] += 1
    while counts.sum() > total:
        # Classes with more than their minimum lose examples first.
        above = counts > np.where(everywhere, 1, 0)
        pool = above if above.any() else counts > 0
        counts[np.argmin(np.where(pool, quotas - counts, np.inf))] -= 1
    return counts
