"""The last step of every loader: examples become the datasets of `Splits`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .random_access import tensor_examples
from .splits import (
    SPLIT_NAMES,
    Skipped,
    Splits,
    check_seed,
    check_size,
    random_order,
    stratified_split,
)


@dataclass(frozen=True)
class SplitSizes:
    """What to take from the training examples for the splits that are not given."""

    validation: float | int
    test: float | int
    seed: int


@dataclass(frozen=True)
class Examples:
    """The examples of one split, before they are a dataset.

    Attributes:
        raws: Paths, texts, or an array of numbers with the examples along its first
            axis.
        names: The name of each example's class.
        labels: The names of the classes in the order that gives them their indices.
        where: The file or folder that they come from, for messages.
    """

    raws: Sequence[str] | np.ndarray
    names: Sequence[str]
    labels: tuple[str, ...]
    where: str


def assemble(
    found: dict[str, Examples],
    sizes: SplitSizes,
    *,
    kind: str,
    what: str,
    skipped: Sequence[Skipped] = (),
) -> Splits:
    """Makes `Splits` of the examples, and takes what is missing from the training ones.

    Args:
        found: The examples under `"train"`, and `"validation"` and `"test"` if they are
            given.
        sizes: How much to take from `"train"` for those that are not given.
        kind: The kind of `Splits`. Raw values of the kind `"image"` are paths.
        what: What the examples are, in the plural, such as `"pictures"`.
        skipped: What the loader left out.

    Returns:
        The splits. Training examples are in a seeded random order, since a shuffle
        buffer that is smaller than a class cannot mix what comes sorted by class.

    Raises:
        DataError: There is less than two classes, a class is empty, or a label is not
            seen in training.
    """
    train = found["train"]
    labels = train.labels
    index = {label: number for number, label in enumerate(labels)}
    counts = Counter(train.names)
    _check_classes(labels, [counts[label] for label in labels], train.where, what)
    parts = {}
    for name, examples in found.items():
        _check_given(examples, index, name, what)
        ids = np.array([index[label] for label in examples.names], np.int32)
        parts[name] = (examples.raws, ids)
    missing = [name for name in SPLIT_NAMES[1:] if name not in parts]
    raws, ids = parts["train"]
    held_out = [getattr(sizes, name) for name in missing]
    names = ["train", *missing]
    split = stratified_split(ids, held_out, seed=sizes.seed)
    chosen = dict(zip(names, split, strict=True))
    order = random_order(len(chosen["train"]), seed=sizes.seed)
    chosen["train"] = chosen["train"][order]
    for name, indices in chosen.items():
        parts[name] = (_choose(raws, indices), ids[indices])
    datasets = {name: _dataset(*parts[name], kind) for name in SPLIT_NAMES}
    return Splits(**datasets, labels=labels, kind=kind, skipped=tuple(skipped))


def read_split_sizes(
    validation: float | int, test: float | int, seed: int
) -> SplitSizes:
    """Checks the arguments of a loader before it spends time on files."""
    return SplitSizes(check_size(validation), check_size(test), check_seed(seed))


def _check_classes(
    labels: Sequence[str], counts: Sequence[int], where: str, what: str
) -> None:
    """Raises a `DataError` unless there are two classes or more, and none is empty."""
    if len(labels) < 2:
        found = f"one class, {labels[0]!r}" if labels else f"no {what}"
        raise DataError(
            f"A classifier needs at least two classes; {where} has {found}."
        )
    empty = [label for label, count in zip(labels, counts, strict=True) if not count]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(labels)} classes in {where} have no {what} to train "
            f"on: {', '.join(map(repr, empty[:10]))}. Add {what} to them, or remove "
            "these classes."
        )


def _check_given(
    examples: Examples, index: dict[str, int], name: str, what: str
) -> None:
    """Raises a `DataError` if a split that is given has nothing, or unknown labels."""
    if not len(examples.names):
        raise DataError(f"The {name} split in {examples.where} has no {what}.")
    unseen = Counter(label for label in examples.names if label not in index)
    if unseen:
        shown = ", ".join(
            f"{label!r} ({count:,} {what})" for label, count in unseen.most_common(10)
        )
        raise DataError(
            f"The {name} split in {examples.where} has {len(unseen)} labels that are "
            f"not seen in training: {shown}. Labels in training: "
            f"{', '.join(map(repr, list(index)[:10]))}{', …' * (len(index) > 10)}. "
            f"Remove these {what}, or add some of these labels to the training split."
        )


def _choose(
    raws: Sequence[str] | np.ndarray, chosen: np.ndarray
) -> Sequence[str] | np.ndarray:
    if isinstance(raws, np.ndarray):
        return raws[chosen]
    return [raws[position] for position in chosen]


def _dataset(
    raws: Sequence[str] | np.ndarray, ids: np.ndarray, kind: str
) -> tf.data.Dataset | None:
    if not len(ids):
        return None
    finish = tf.io.read_file if kind == "image" else None
    return tensor_examples(raws, ids, finish).dataset()
