"""Classification: one label out of several for each example."""

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import DataError


@dataclasses.dataclass(frozen=True)
class Classification:
    """Predicts one label out of several for each example.

    Args:
        labels: Names of the classes, in the order of the model's outputs; at least
            two, all different.

    Raises:
        DataError: There are fewer than two labels, or duplicates.

    Example:
        >>> task = tlkit.tasks.Classification(["cat", "dog"])
        >>> task.label_index("dog")
        1
        >>> model = tlkit.build_model(encoder, task)
    """

    labels: tuple[str, ...]

    def __post_init__(self):
        if isinstance(self.labels, str):
            raise DataError(
                f"labels must be a list of names. Received one string: {self.labels!r}."
            )
        labels = tuple(str(label) for label in self.labels)
        object.__setattr__(self, "labels", labels)
        if len(labels) < 2:
            raise DataError(
                f"A classifier needs at least two labels. Received: {list(labels)}."
            )
        duplicates = sorted({label for label in labels if labels.count(label) > 1})
        if duplicates:
            raise DataError(f"Labels must differ. Duplicates: {duplicates}.")

    @property
    def outputs(self) -> int:
        """Number of logits for each example."""
        return len(self.labels)

    def loss(self) -> keras.losses.Loss:
        """Returns the cross entropy of int labels and logits `[batch, labels]`."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns new metric objects: only the accuracy."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Converts logits to probabilities; both are float32 `[batch, labels]`."""
        logits = np.asarray(logits, np.float32)
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)

    def label_index(self, label: str) -> int:
        """Returns the index of a label.

        Raises:
            DataError: There is no such label.
        """
        if label not in self.labels:
            raise DataError(
                f"The model has no label {label!r}. Its labels are: "
                f"{', '.join(self.labels)}."
            )
        return self.labels.index(label)

    def answer(self, logits: tf.Tensor, top: int = 1) -> dict[str, tf.Tensor]:
        """Computes the outputs of a served model, with TensorFlow ops.

        Args:
            logits: Float32 `[batch, labels]`.
            top: Number of labels in `top_labels`.

        Returns:
            `label` (string `[batch]`), `score` (float32 `[batch]`), `scores` (float32
            `[batch, labels]`), `labels` (string `[batch, labels]`), and `top_labels`
            and `top_scores` (`[batch, top]`, highest first).
        """
        scores = tf.nn.softmax(tf.cast(logits, tf.float32), name="scores")
        names = tf.constant(self.labels)
        top_scores, top_indices = tf.math.top_k(scores, top)
        return {
            "label": tf.gather(names, tf.argmax(scores, axis=-1)),
            "score": tf.reduce_max(scores, axis=-1),
            "top_labels": tf.gather(names, top_indices),
            "top_scores": top_scores,
            "scores": scores,
            "labels": tf.broadcast_to(names[tf.newaxis], tf.shape(scores)),
        }

    def to_config(self) -> dict[str, Any]:
        """Returns a dict from which `task_from_config` creates this task."""
        return {"task": "classification", "labels": list(self.labels)}


def task_from_config(config: dict[str, Any]) -> Classification:
    """Creates the task from a config that `to_config` returned."""
    kinds = {"classification": Classification}
    config = dict(config)
    kind = config.pop("task")
    if kind not in kinds:
        raise DataError(f"The task {kind!r} is unknown. Known: {', '.join(kinds)}.")
    return kinds[kind](**config)


def classification(labels: int | Sequence[str] | Classification) -> Classification:
    """Creates a classification task from labels; returns a given task unchanged.

    Args:
        labels: Their names, or their number (the names are then `"0"`, `"1"`, …), or a
            task.

    Example:
        >>> tlkit.tasks.classification(3).labels
        ('0', '1', '2')
    """
    if isinstance(labels, Classification):
        return labels
    if isinstance(labels, numbers.Integral):  # an int of Python or NumPy
        labels = [str(number) for number in range(labels)]
    if not hasattr(labels, "__iter__"):
        raise DataError(
            f"labels must be the names of the classes, or their number; got {labels!r}."
        )
    return Classification(tuple(labels) if not isinstance(labels, str) else labels)
