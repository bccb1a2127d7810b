"""The last step of a loader: its examples become the datasets of `Splits`.

Tested in tests/data/loaders/test_arrays.py and test_image_folder.py.
"""

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
    """The sizes of the splits to take from the training examples, and the seed.

    A size is a fraction as a float in [0, 1), or a number of examples as an int. A
    loader creates this object first, so that invalid arguments raise an error before
    files are read.
    """

    validation: float | int
    test: float | int
    seed: int

    def __post_init__(self) -> None:
        check_size(self.validation), check_size(self.test), check_seed(self.seed)


@dataclass(frozen=True)
class LoadedExamples:
    """The examples of one split as a loader found them.

    Attributes:
        raws: Paths, texts, or an array of numbers with the examples along its first
            axis.
        names: The name of each example's class.
        labels: The names of the classes by their index.
        where: The file or folder that the examples come from, for messages.
    """

    raws: Sequence[str] | np.ndarray
    names: Sequence[str]
    labels: tuple[str, ...]
    where: str


def assemble(
    loaded: dict[str, LoadedExamples],
    sizes: SplitSizes,
    *,
    kind: str,
    what: str,
    skipped: Sequence[Skipped] = (),
) -> Splits:
    """Makes `Splits` of examples; takes missing splits from the training examples.

    Args:
        loaded: The examples under `"train"`, and under `"validation"` and `"test"` if
            the data has them.
        sizes: The sizes of the splits that are missing.
        kind: The kind of `Splits`. For `"image"`, `raws` are the paths of the files.
        what: The examples in the plural, for messages, such as `"images"`.
        skipped: The examples that the loader left out.

    Returns:
        The splits. Training examples are in a seeded random order, since a shuffle
        buffer that is smaller than a class cannot mix examples sorted by class.

    Raises:
        DataError: There are fewer than two classes, a class is empty, or a label does
            not occur in training.
    """
    train = loaded["train"]
    index = {label: number for number, label in enumerate(train.labels)}
    _check_classes(train, what)
    raws, ids = {}, {}
    for name, examples in loaded.items():
        _check_split(examples, index, name, what)
        raws[name] = examples.raws
        ids[name] = np.array([index[label] for label in examples.names], np.int32)
    missing = [name for name in SPLIT_NAMES[1:] if name not in loaded]
    held_out = [getattr(sizes, name) for name in missing]
    parts = stratified_split(ids["train"], held_out, seed=sizes.seed)
    indices = dict(zip(["train", *missing], parts, strict=True))
    shuffle = random_order(len(indices["train"]), seed=sizes.seed)
    indices["train"] = indices["train"][shuffle]
    all_raws, all_ids = raws["train"], ids["train"]
    for name, chosen in indices.items():
        raws[name], ids[name] = _take(all_raws, chosen), all_ids[chosen]
    datasets = {name: _dataset(raws[name], ids[name], kind) for name in SPLIT_NAMES}
    return Splits(**datasets, labels=train.labels, kind=kind, skipped=tuple(skipped))


def _check_classes(train: LoadedExamples, what: str) -> None:
    """Raises a `DataError` unless there are two classes or more, and none is empty."""
    labels, where = train.labels, train.where
    if len(labels) < 2:
        content = f"one class, {labels[0]!r}" if labels else f"no {what}"
        raise DataError(
            f"A classifier needs at least two classes; {where} has {content}."
        )
    counts = Counter(train.names)
    empty = [label for label in labels if not counts[label]]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(labels)} classes in {where} have no {what} to train "
            f"on: {', '.join(map(repr, empty[:10]))}. Add {what} to them, or remove "
            "these classes."
        )


def _check_split(
    examples: LoadedExamples, index: dict[str, int], name: str, what: str
) -> None:
    """Raises a `DataError` if a split is empty, or has labels that training lacks."""
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


def _take(
    raws: Sequence[str] | np.ndarray, indices: np.ndarray
) -> Sequence[str] | np.ndarray:
    if isinstance(raws, np.ndarray):
        return raws[indices]
    return [raws[index] for index in indices]


def _dataset(
    raws: Sequence[str] | np.ndarray, ids: np.ndarray, kind: str
) -> tf.data.Dataset | None:
    if not len(ids):
        return None
    finish = tf.io.read_file if kind == "image" else None
    return tensor_examples(raws, ids, finish).dataset()
