"""Compares predictions with labels: accuracy, precision, recall, F1 and confusion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import DataError
from ..files import strict_json
from . import tables


@dataclass(frozen=True)
class ClassRow:
    """The metrics of one class.

    Attributes:
        label: Its name.
        precision: The fraction of the examples predicted as this class that belong to
            it, in [0, 1]; 0 if there are none.
        recall: The fraction of the examples of this class that are predicted as it, in
            [0, 1]; 0 if there are none.
        f1: The harmonic mean of precision and recall; 0 if both are 0.
        support: The number of examples of this class.
        predicted: The number of examples predicted as this class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True)
class Evaluation:
    """The quality of the predictions for one split.

    Macro values are unweighted means over the classes that occur as a label or as a
    prediction, like those of scikit-learn with `average="macro", zero_division=0`.

    Attributes:
        loss: The mean loss of an example.
        accuracy: The fraction of examples that are predicted correctly, in [0, 1].
        macro_precision: The mean of the classes' precision, in [0, 1].
        macro_recall: The mean of the classes' recall, in [0, 1].
        macro_f1: The mean of the classes' F1, in [0, 1].
        per_class: The metrics of each class, in the order of `labels`.
        confusion: `confusion[i][j]` counts the examples of class `i` that were
            predicted as class `j`.
        labels: The names of the classes.
        examples: The number of examples.
    """

    loss: float
    accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    examples: int

    def to_json(self) -> str:
        """Returns a JSON object as text; a number that is not finite becomes `null`."""
        return strict_json.dump(self)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Reads the result of `to_json`.

        Raises:
            DataError: The text is not the JSON of an evaluation.
        """
        try:
            return read_evaluation(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"This is not an evaluation in JSON: {error!r}") from error

    def __str__(self) -> str:
        return tables.evaluation_table(self, most_confused(self))


def evaluate_predictions(
    scores: np.ndarray,
    labels: np.ndarray | Sequence[int],
    *,
    label_names: Sequence[str],
    loss: float | None = None,
) -> Evaluation:
    """Computes all metrics from predictions and labels.

    Args:
        scores: `[n, classes]` floats: probabilities if all are in [0, 1] and every row
            sums to 1, else logits. The predicted class is that of the largest score of
            a row; the first one if scores are equal.
        labels: `[n]` integers, the true class of each example.
        label_names: The names of the classes by their index.
        loss: The mean loss of an example; if `None`, it is the cross-entropy of the
            scores.

    Returns:
        The evaluation.

    Raises:
        DataError: The shapes differ, a label is out of range, or `n` is 0.

    Example:

    ```python
    scores = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]
    evaluation = tlkit.reports.evaluate_predictions(
        scores, [0, 1, 1, 1], label_names=["cat", "dog"]
    )
    evaluation.accuracy  # 0.75
    ```
    """
    scores = np.asarray(scores, np.float64)
    truth = np.asarray(labels)
    label_names = tuple(label_names)
    _check(scores, truth, label_names)
    predictions = scores.argmax(axis=1)
    classes = len(label_names)
    confusion = np.bincount(
        truth.astype(np.int64) * classes + predictions, minlength=classes**2
    ).reshape(classes, classes)
    return _from_confusion(
        confusion, label_names, _cross_entropy(scores, truth) if loss is None else loss
    )


def most_confused(
    evaluation: Evaluation, limit: int = 10
) -> list[tuple[str, str, int]]:
    """Finds the pairs of classes that are confused most often.

    Args:
        evaluation: The evaluation.
        limit: The maximal number of pairs.

    Returns:
        True label, predicted label and count of each pair, by descending count.
    """
    confusion = np.array(evaluation.confusion)
    np.fill_diagonal(confusion, 0)
    order = np.argsort(-confusion, axis=None, kind="stable")[:limit]
    pairs = [np.unravel_index(index, confusion.shape) for index in order]
    labels = evaluation.labels
    return [
        (labels[i], labels[j], int(confusion[i, j]))
        for i, j in pairs
        if confusion[i, j]
    ]


def read_evaluation(entry: dict) -> Evaluation:
    """Converts the JSON object of `Evaluation.to_json` to an `Evaluation`."""
    values = {field.name: entry[field.name] for field in fields(Evaluation)}
    for name in ("loss", "accuracy", "macro_precision", "macro_recall", "macro_f1"):
        values[name] = strict_json.number(values[name])
    values["per_class"] = tuple(ClassRow(**row) for row in values["per_class"])
    values["confusion"] = tuple(tuple(row) for row in values["confusion"])
    values["labels"] = tuple(values["labels"])
    return Evaluation(**values)


def _check(scores: np.ndarray, truth: np.ndarray, label_names: tuple[str, ...]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(label_names):
        raise DataError(
            f"scores must have the shape [n, {len(label_names)}], with one column for "
            f"each label; got {list(scores.shape)}."
        )
    if truth.shape != scores.shape[:1]:
        raise DataError(
            f"labels must have the shape [{len(scores)}], one for each row of scores; "
            f"got {list(truth.shape)}."
        )
    if not len(truth):
        raise DataError("There are no predictions to evaluate.")
    if (
        truth.dtype.kind not in "iu"
        or truth.min() < 0
        or truth.max() >= len(label_names)
    ):
        raise DataError(
            f"labels must be integers from 0 to {len(label_names) - 1}; got "
            f"{truth.dtype} from {truth.min()} to {truth.max()}."
        )


def _cross_entropy(scores: np.ndarray, truth: np.ndarray) -> float:
    of_truth = scores[np.arange(len(truth)), truth]
    sums = scores.sum(axis=1)
    if (scores >= 0).all() and np.allclose(sums, 1.0, atol=1e-3):
        # Clipped as in Keras: a probability of 0 would make the loss infinite.
        return float(-np.log(np.clip(of_truth, 1e-7, 1.0)).mean())
    largest = scores.max(axis=1)
    total = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    return float((total - of_truth).mean())


def _from_confusion(
    confusion: np.ndarray, labels: tuple[str, ...], loss: float
) -> Evaluation:
    right = np.diag(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    occurs = (support + predicted) > 0
    rows = zip(labels, precision, recall, f1, support, predicted, strict=True)
    return Evaluation(
        loss=float(loss),
        accuracy=float(right.sum() / confusion.sum()),
        macro_precision=float(precision[occurs].mean()),
        macro_recall=float(recall[occurs].mean()),
        macro_f1=float(f1[occurs].mean()),
        per_class=tuple(
            ClassRow(label, float(p), float(r), float(f), int(s), int(n))
            for label, p, r, f, s, n in rows
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        labels=labels,
        examples=int(confusion.sum()),
    )
