"""Tasks: what is predicted, and what that means for head, loss, metrics and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import DataError


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label out of several for each example.

    Args:
        labels: Names of the classes, in the order of the model's outputs; at least
            two, all different.

    Raises:
        DataError: There are fewer than two labels, or one comes twice.

    Example:

    ```python
    task = tlkit.tasks.Classification(["cat", "dog"])
    model = tlkit.build_model(encoder, task)
    ```
    """

    labels: tuple[str, ...]

    def __post_init__(self):
        if isinstance(self.labels, str):
            raise DataError(
                f"labels must be several names. Received one string: {self.labels!r}."
            )
        labels = tuple(str(label) for label in self.labels)
        object.__setattr__(self, "labels", labels)
        if len(labels) < 2:
            raise DataError(
                f"A classifier needs at least two labels. Received: {list(labels)}."
            )
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise DataError(f"Every label may come once. These come twice: {twice}.")

    @property
    def outputs(self) -> int:
        """How many numbers the head gives for an example."""
        return len(self.labels)

    def loss(self) -> keras.losses.Loss:
        """Cross entropy of integer labels `[batch]` and logits `[batch, labels]`."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Fresh metrics: the accuracy."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities, float32 `[batch, labels]`, of logits of the same shape."""
        logits = np.asarray(logits, np.float32)
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)

    def label_index(self, label: str) -> int:
        """Position of a label.

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
        """What a served model answers, as TensorFlow ops.

        Args:
            logits: Float32 `[batch, labels]`.
            top: How many labels `top_labels` gives.

        Returns:
            `label` (string `[batch]`), `score` (float32 `[batch]`), `scores` (float32
            `[batch, labels]`), `labels` (string `[batch, labels]`), and `top_labels`
            and `top_scores` (`[batch, top]`, highest first).
        """
        scores = tf.nn.softmax(tf.cast(logits, tf.float32), name="scores")
        names = tf.constant(self.labels)
        every = tf.broadcast_to(names[tf.newaxis], tf.shape(scores))
        highest, places = tf.math.top_k(scores, top)
        return {
            "label": tf.gather(names, tf.argmax(scores, axis=-1)),
            "score": tf.reduce_max(scores, axis=-1),
            "top_labels": tf.gather(names, places),
            "top_scores": highest,
            "scores": scores,
            "labels": every,
        }

    def to_config(self) -> dict[str, Any]:
        """A dict that `task_from_config` turns into this task again."""
        return {"task": "classification", "labels": list(self.labels)}


def task_from_config(config: dict[str, Any]) -> Classification:
    """The task that `to_config` described."""
    kinds = {"classification": Classification}
    config = dict(config)
    kind = config.pop("task")
    if kind not in kinds:
        raise DataError(f"The task {kind!r} is unknown. Known: {', '.join(kinds)}.")
    return kinds[kind](**config)


def classification(labels: int | Sequence[str] | Classification) -> Classification:
    """The classification task of some labels, or of a number of them.

    Args:
        labels: Names, or how many there are (they are then called `"0"`, `"1"`, …).

    Returns:
        The task.
    """
    if isinstance(labels, Classification):
        return labels
    if isinstance(labels, int):
        labels = [str(number) for number in range(labels)]
    return Classification(tuple(labels) if not isinstance(labels, str) else labels)
