"""What every loader returns: the splits of one data set.

Dividing examples into splits: stratified, seeded, the same on every platform.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ...errors import DataError

_NAMED = 10  # how many paths a warning names before it only counts


@dataclass(frozen=True)
class Skipped:
    """One example that was left out, and why.

    Attributes:
        path: The file that it is, or that it stands in; for data in memory the
            argument that it stands in, such as `"x"`.
        reason: What is wrong with it.
        row: Where it stands in a file, as a spreadsheet numbers its rows: the header is
            row 1. In memory, its index. `None` for a file of its own.
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
    an index into `labels`. What `raw` is depends on `kind`:

    * `"image"`: a scalar string, the bytes of an encoded picture (JPEG, PNG, GIF,
      BMP, WebP);
    * `"text"`: a scalar string, a text in UTF-8, or `[2]` of them, a pair;
    * `"array"`: an array of numbers.

    Attributes:
        train: The examples to train on, in a seeded random order.
        validation: The examples to choose by, or `None`.
        test: The examples to judge by, or `None`.
        labels: The names of the classes, by their index.
        kind: `"image"`, `"text"` or `"array"`.
        skipped: What was left out, and why.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    labels: tuple[str, ...]
    kind: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples in each split that there is, by its name."""
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
    """Says once, with names, what was left out.

    Args:
        skipped: What was left out; nothing is said about nothing.
        what: What they are, in the plural, such as `"pictures"`.
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


# === Splitting ===


def stratified_split(
    labels: np.ndarray, held_out: Sequence[float | int], *, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Divides examples so that every split has each class in the same proportion.

    Every class keeps at least one example for training, so a class with a single
    example is only trained on. A class with at least one example more than there are
    splits to hold out (three, for validation and test) is in each of them, as long as
    the split is large enough to hold one example of every such class.

    Args:
        labels: `[n]` integers, the class of each example.
        held_out: The size of each split to hold out: a share as a float in (0, 1), or
            a number of examples as an int, or 0 for none. A share is rounded to the
            nearest number of examples, but not to none.
        seed: Not negative. The same seed gives the same split, with every version of
            NumPy and on every machine.

    Returns:
        `len(held_out) + 1` arrays of sorted int64 indices into `labels`: first what is
        left for training, then each held out split. Together they hold every index
        once.

    Raises:
        DataError: A size is negative, or together they leave too little to train on.

    Example:

    ```python
    train, validation, test = stratified_split(labels, (0.1, 0.1), seed=0)
    ```
    """
    labels = np.asarray(labels)
    classes, members, class_sizes = np.unique(
        labels, return_inverse=True, return_counts=True
    )
    totals = _totals(held_out, len(labels))
    counts = _counts(class_sizes, totals)
    # Ordered by raw bits, not by Generator.permutation: NumPy promises to keep the
    # bits of a BitGenerator for ever, but not what a Generator makes of them (NEP 19).
    keys = np.random.PCG64(check_seed(seed)).random_raw(len(labels))
    splits: list[list[np.ndarray]] = [[] for _ in range(len(totals) + 1)]
    for index in range(len(classes)):
        own = np.flatnonzero(members == index)
        own = own[np.argsort(keys[own], kind="stable")]
        start = 0
        for split, count in enumerate(counts[:, index], start=1):
            splits[split].append(own[start : start + count])
            start += count
        splits[0].append(own[start:])
    return tuple(_sorted(parts) for parts in splits)


def random_order(count: int, *, seed: int = 0) -> np.ndarray:
    """A seeded permutation of `range(count)`, the same on every platform."""
    keys = np.random.PCG64([check_seed(seed), count]).random_raw(count)
    return np.argsort(keys, kind="stable")


def check_seed(seed: int) -> int:
    """Returns the seed, or raises a `DataError` if it is none."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed must be an integer of 0 or more; got {seed!r}.")
    return int(seed)


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))


def check_size(size: float | int) -> float | int:
    """Returns the size of a split, or raises a `DataError` if it is none."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if whole and size >= 0:
        return int(size)
    if isinstance(size, float | np.floating) and 0 <= size < 1:
        return float(size)
    raise DataError(
        "The size of a split is a share of the examples from 0 up to 1 (a float), or a "
        f"number of examples (an int); got {size!r}."
    )


def _totals(held_out: Sequence[float | int], examples: int) -> list[int]:
    """Turns shares into numbers of examples."""
    totals = []
    for size in map(check_size, held_out):
        if isinstance(size, float) and size:
            size = max(1, int(size * examples + 0.5))
        totals.append(int(size))
    return totals


def _counts(class_sizes: np.ndarray, totals: list[int]) -> np.ndarray:
    """How many examples of each class each held out split gets: `[splits, classes]`."""
    wanted = sum(total > 0 for total in totals)
    examples = int(class_sizes.sum())
    # What a class can spare. The one that it keeps is for training.
    spare = class_sizes - 1
    if sum(totals) > spare.sum():
        tiny = examples <= len(class_sizes) + len(totals)
        raise DataError(
            f"The splits to hold out take {sum(totals)} of {examples} examples, but "
            f"each of the {len(class_sizes)} classes must keep one for training. "
            + ("Add examples, or type" if tiny else "Type smaller sizes, such as")
            + " validation=0, test=0."
        )
    everywhere = class_sizes > wanted
    counts = np.zeros((len(totals), len(class_sizes)), np.int64)
    for split, total in enumerate(totals):
        if not total:
            continue
        wanted -= 1
        # The last one of a class is not taken while a later split is owed one, unless
        # this split cannot be filled otherwise.
        limit = spare - np.where(everywhere, wanted, 0)
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
        quotas: `[classes]`, what each class should give, in fractions.
        total: The sum to reach; at most `limit.sum()`.
        limit: `[classes]`, the most that each class can give.
        everywhere: `[classes]`, bool: give at least one, if the total allows it.
    """
    counts = np.minimum(np.floor(quotas).astype(np.int64), limit)
    counts = np.maximum(counts, np.minimum(everywhere, limit))
    while counts.sum() < total:
        counts[np.argmax(np.where(counts < limit, quotas - counts, -np.inf))] += 1
    while counts.sum() > total:
        # First from those that have more than the one that they are promised.
        rich = counts > np.where(everywhere, 1, 0)
        pool = rich if rich.any() else counts > 0
        counts[np.argmin(np.where(pool, quotas - counts, np.inf))] -= 1
    return counts
