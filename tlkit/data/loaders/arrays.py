"""Loads arrays and texts that are in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DataError
from ..examples.split_assembly import LoadedExamples, SplitSizes, assemble
from ..examples.splits import Splits, warn_skipped
from .texts import Text, check_on_empty, drop_empty

_Pair = tuple[Any, Any]


def arrays(
    x: np.ndarray | Sequence[str] | Sequence[tuple[str, str]],
    y: np.ndarray | Sequence[int] | Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    validation_data: _Pair | None = None,
    test_data: _Pair | None = None,
    on_empty: str = "skip",
) -> Splits:
    """Makes splits of examples in memory: arrays of numbers, or texts.

    A split that is not given is taken from `x` and `y`: stratified, and controlled by
    the seed. A class with a single example stays in the training split.

    Args:
        x: Numbers with the examples along the first axis, such as images
            `[n, height, width]` or `[n, height, width, channels]`, of any integer or
            float dtype (float64 becomes float32); or `n` texts; or `n` pairs of texts.
        y: `[n]` or `[n, 1]`, the class of each example: indices into `labels`, or names
            of labels.
        labels: The names of the classes by their index. Default: the sorted names in
            `y`, or `"0"`, `"1"`, … up to the largest index in it.
        validation: The size of the validation split, unless there is
            `validation_data`: a fraction as a float in [0, 1), or a number of examples
            as an int; 0 for none.
        test: The size of the test split, unless there is `test_data`; as for
            `validation`.
        seed: Not negative. Decides the splits and the order of the training examples.
        validation_data: A pair `(x, y)` with the validation split.
        test_data: A pair `(x, y)` with the test split.
        on_empty: `"skip"` leaves out empty and blank texts (pairs: if both are) with a
            warning, `"raise"` raises an error.

    Returns:
        Splits of the kind `"array"` or `"text"`.

    Raises:
        DataError: `x` and `y` differ in length, a number is not finite, a label is
            unknown or does not occur in training, or there is only one class.

    Example:

    ```python
    (x, y), test_data = keras.datasets.fashion_mnist.load_data()
    splits = tlkit.data.arrays(x, y, test_data=test_data)
    splits.sizes  # {"train": 54000, "validation": 6000, "test": 10000}
    ```
    """
    check_on_empty(on_empty)
    sizes = SplitSizes(validation, test, seed)
    given = {"train": (x, y), "validation": validation_data, "test": test_data}
    pairs = {
        split: _check_pair(pair, _NAMES[split])
        for split, pair in given.items()
        if pair is not None
    }
    train, classes = pairs["train"]
    if labels is None:
        labels, named = _infer_labels(classes), False
    else:
        labels, named = _check_labels(labels), True
    kind = "text" if isinstance(train, list) else "array"
    loaded, skipped = {}, []
    for split, (raws, classes) in pairs.items():
        where = _NAMES[split]
        _check_alike(raws, train, where)
        names = _label_names(classes, labels, named, where)
        if kind == "text":
            rows = zip(range(len(raws)), raws, names, strict=True)
            raws, names = drop_empty(rows, where, on_empty, skipped)
        loaded[split] = LoadedExamples(raws, names, labels, where)
    warn_skipped(skipped, "texts")
    what = "texts" if kind == "text" else "examples"
    return assemble(loaded, sizes, kind=kind, what=what, skipped=skipped)


# The arguments that hold the splits, for messages.
_NAMES = {"train": "x", "validation": "validation_data", "test": "test_data"}


def _check_pair(pair: _Pair, where: str) -> tuple[list[Text] | np.ndarray, np.ndarray]:
    """Returns the examples (a list of texts, or an array) and the class of each."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{where} must be a pair (x, y); got {_describe(pair)}.")
    raws, classes = _check_raws(pair[0], where), np.asarray(pair[1])
    if classes.ndim == 2 and classes.shape[1] == 1:
        classes = classes[:, 0]
    if classes.ndim != 1:
        hint = " Type: y.argmax(axis=1)" if classes.ndim == 2 else ""
        raise DataError(
            f"y of {where} must have one class for each example, of shape [n]; got "
            f"shape {list(classes.shape)}.{hint}"
        )
    if len(raws) != len(classes):
        raise DataError(
            f"{where} has {len(raws):,} examples but {len(classes):,} labels in y."
        )
    if not len(raws):
        raise DataError(f"{where} has no examples.")
    return raws, _check_classes(classes, where)


def _check_raws(x: Any, where: str) -> list[Text] | np.ndarray:
    # Not converted by NumPy, which would pad all texts to the length of the longest.
    if isinstance(x, list | tuple) and x and _holds_texts(x[0]):
        return _check_texts(list(x), where)
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise DataError(f"The examples of {where} differ in shape: {error}") from error
    if array.dtype.kind in "OUST":
        return _check_texts(array.tolist(), where)
    if array.dtype.kind not in "iufb" or array.ndim < 2:
        raise DataError(
            f"{where} must hold numbers with the examples along the first axis, such "
            f"as [n, height, width, channels], or n texts; got {_describe(array)}."
        )
    if array.dtype.kind == "f":
        _check_finite(array, where)
    if array.dtype in (np.float64, np.bool_):
        return array.astype(np.float32)
    return array


def _holds_texts(example: Any) -> bool:
    if isinstance(example, list | tuple):
        return bool(example) and all(isinstance(part, str) for part in example)
    return isinstance(example, str)


def _check_texts(texts: list[Any], where: str) -> list[Text]:
    """Returns the texts, or the pairs of texts as tuples."""
    if not texts or not isinstance(texts[0], list | tuple):
        for index, text in enumerate(texts):
            _check_text(text, f"Example {index:,} of {where}")
        return texts
    for index, pair in enumerate(texts):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"Example {index:,} of {where} must be a pair of texts, like those "
                f"before it; got {pair!r:.80}."
            )
        for text in pair:
            _check_text(text, f"A text of example {index:,} of {where}")
    return [tuple(pair) for pair in texts]


def _check_text(text: Any, what: str) -> None:
    if not isinstance(text, str):
        hint = " Type: text.decode()" if isinstance(text, bytes) else ""
        raise DataError(
            f"{what} must be a text, as str; got {type(text).__name__}.{hint}"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} is not valid Unicode: {error.reason}.") from error


def _check_finite(array: np.ndarray, where: str) -> None:
    # One example at a time: a mask of the whole array could fill the memory.
    for index, example in enumerate(array):
        if not np.isfinite(example).all():
            raise DataError(
                f"Example {index:,} of {where} has numbers that are not finite (NaN or "
                "infinity). Repair or remove it."
            )


def _check_classes(classes: np.ndarray, where: str) -> np.ndarray:
    """Returns the classes as int64 indices, or as an array of str."""
    if classes.dtype.kind in "OUT" and all(isinstance(name, str) for name in classes):
        return classes.astype(object)
    try:
        numbers = classes.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(len(classes), np.nan)
    wrong = ~(np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers)))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise DataError(
            "Classes must all be names (str), or all be indices from 0 up; y of "
            f"{where} has {classes[index]!r} for example {index:,}."
        )
    return numbers.astype(np.int64)


def _infer_labels(classes: np.ndarray) -> tuple[str, ...]:
    if classes.dtype == object:
        return tuple(sorted({name.strip() for name in classes} - {""}))
    largest = int(classes.max())
    if largest >= len(classes):
        raise DataError(
            "Without labels=…, the classes in y are indices 0, 1, … with an example of "
            f"each; got {largest:,} among {len(classes):,} examples. If they are "
            "names, type: [str(name) for name in y]"
        )
    return tuple(str(index) for index in range(largest + 1))


def _check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"labels must be a list of names (str); got {labels!r}.")
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice:
        raise DataError(f"labels must differ; got twice: {', '.join(twice)}.")
    return tuple(labels)


def _label_names(
    classes: np.ndarray, labels: tuple[str, ...], named: bool, where: str
) -> list[str]:
    """Returns the name of each example's class, which may be missing in `labels`."""
    if classes.dtype == object:
        names = [name.strip() for name in classes]
        unknown = sorted(set(names) - {*labels, ""}) if named else []
        if unknown:
            raise DataError(
                f"y of {where} has names that are not in labels: "
                f"{', '.join(map(repr, unknown[:10]))}. labels has: "
                f"{', '.join(map(repr, labels[:10]))}."
            )
        return names
    if named and classes.max() >= len(labels):
        index = int(np.argmax(classes >= len(labels)))
        raise DataError(
            f"y of {where} has class {classes[index]} for example {index:,}; with "
            f"{len(labels)} labels, classes run from 0 to {len(labels) - 1}."
        )
    return [labels[n] if n < len(labels) else str(n) for n in classes.tolist()]


def _check_alike(
    raws: list[Text] | np.ndarray, train: list[Text] | np.ndarray, where: str
) -> None:
    """Raises a `DataError` if kind, shape or dtype differ from the training split's."""
    kind = _kind(train)
    if _kind(raws) != kind:
        raise DataError(f"{where} must hold {kind}, as x does.")
    if kind != "numbers":
        return
    if raws.shape[1:] != train.shape[1:] or raws.dtype != train.dtype:
        raise DataError(
            f"{where} must hold examples like those of x, {_describe(train)}; got "
            f"{_describe(raws)}."
        )


def _kind(raws: list[Text] | np.ndarray) -> str:
    if isinstance(raws, np.ndarray):
        return "numbers"
    return "texts" if isinstance(raws[0], str) else "pairs of texts"


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
