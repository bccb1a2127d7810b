"""Losses and metrics, as Keras names and compiles them, for our own loop.

The figures of an epoch: the mean loss and the metrics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ...errors import TrainingError


class Objective:
    """The mean loss over the examples of all replicas together.

    Keras divides by the examples of one replica, and then by the replicas: examples in
    an uneven last batch would weigh differently. So its loss is asked for the value of
    each example, and the sums are divided here.

    Args:
        loss: A Keras loss, a function `(labels, outputs) -> values`, or a name.
    """

    def __init__(self, loss: keras.losses.Loss | Callable | str):
        self.loss = _loss_object(loss)
        self.reduction = self.loss.reduction

    def sums(self, labels, outputs, weights, present) -> tuple[tf.Tensor, tf.Tensor]:
        """The weighted sum of the examples' losses, and what it is to be divided by.

        Args:
            labels: The true values, `[batch, …]`.
            outputs: What the model gave, `[batch, …]`.
            weights: Float32 `[batch]`, or `None` for 1 each.
            present: Float32 `[batch]`, 0 for examples that only fill up the batch, or
                `None` if there are none.

        Returns:
            Two float32 scalars, of this replica alone.
        """
        size = tf.shape(tf.nest.flatten(outputs)[0])[0]
        loss = _loss_of_shares(self.loss) if shares(labels, outputs) else self.loss
        with _unreduced(loss):
            values = loss(labels, outputs, sample_weight=weights)
        if values.shape.rank == 0:  # a function of the user's own, with its own mean
            values = tf.repeat(values, size)
        values = tf.cast(values, tf.float32)
        each = tf.reshape(values, (size, -1))
        each = tf.reduce_sum(each, axis=1) if self._summed else tf.reduce_mean(each, 1)
        present = tf.ones_like(each) if present is None else present
        total = tf.reduce_sum(each * present)
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            return total, tf.reduce_sum(weights * present)
        return total, tf.reduce_sum(present)

    @property
    def _summed(self) -> bool:
        return self.reduction == "sum"

    def divisor(self, count: tf.Tensor) -> tf.Tensor:
        """What the sum over all replicas is divided by, of their summed counts."""
        return tf.ones_like(count) if self._summed else tf.maximum(count, 1e-12)

    def share(self, count: tf.Tensor, parts: tf.Tensor) -> tf.Tensor:
        """What a batch's added losses are multiplied by, so that all parts make one.

        Args:
            count: What `sums` gave for this batch, on this replica.
            parts: How many such batches make one update: replicas by micro-batches.
        """
        return tf.ones_like(count) / parts if self._summed else count


def shares(labels, outputs) -> bool:
    """Whether labels are shares of classes, as MixUp and CutMix make them."""
    same_rank = labels.shape.rank == outputs.shape.rank
    classes = outputs.shape[-1]
    return same_rank and labels.shape[-1] == classes != 1 and labels.dtype.is_floating


def _loss_of_shares(loss: keras.losses.Loss) -> keras.losses.Loss:
    if not isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        return loss
    return keras.losses.CategoricalCrossentropy(
        from_logits=loss.from_logits, reduction=loss.reduction, dtype=loss.dtype
    )


@contextlib.contextmanager
def _unreduced(loss: keras.losses.Loss) -> Iterator[None]:
    # Not on a copy: copying one goes through its config, which those of users lack.
    before, loss.reduction = loss.reduction, None
    try:
        yield
    finally:
        loss.reduction = before


def _loss_object(loss) -> keras.losses.Loss:
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(found, keras.losses.Loss):
        return found
    if callable(found):
        return _FunctionLoss(found)
    raise TrainingError(
        "loss must be one Keras loss, a function of labels and outputs, or a name such "
        f'as "mse". Received: {loss!r}. A model with several losses can be trained by '
        "model.fit only."
    )


class _FunctionLoss(keras.losses.Loss):
    def __init__(self, function: Callable):
        super().__init__(name="loss")
        self.function = function

    def call(self, labels, outputs):
        # As Keras does: what it compares with must have the rank of the outputs.
        if labels.shape.rank == outputs.shape.rank - 1 and outputs.shape[-1] == 1:
            labels = tf.expand_dims(labels, -1)
        return self.function(labels, outputs)


def compiled_metrics(model: keras.Model) -> list[Any]:
    """The metrics that a model was compiled with, made anew."""
    config = model.get_compile_config() if model.compiled else None
    given = keras.saving.deserialize_keras_object((config or {}).get("metrics"))
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def resolve_metrics(metrics: Sequence[Any], labels, outputs) -> list[Any]:
    """Metric objects of what a user gave, as Keras's `compile` resolves it.

    Args:
        metrics: Keras metrics, functions or names; `"accuracy"` becomes the kind of
            accuracy that the shapes call for.
        labels: Specs of the labels.
        outputs: Specs of the model's outputs.

    Returns:
        Keras metrics; those among the given are used themselves, as Keras does.
    """
    return [_metric(metric, labels, outputs) for metric in metrics]


def _metric(metric, labels, outputs) -> keras.metrics.Metric:
    if isinstance(metric, keras.metrics.Metric):
        return metric
    if metric in ("accuracy", "acc"):
        return _accuracy(labels, outputs, name=metric)
    found = keras.metrics.get(metric) if isinstance(metric, str) else metric
    if isinstance(found, keras.metrics.Metric):
        found.name = metric  # "mae", say, and not "mean_absolute_error"
        return found
    if isinstance(metric, str):
        name = metric
    else:
        name = getattr(metric, "__name__", "metric")
    return keras.metrics.MeanMetricWrapper(found, name=name)


def _accuracy(labels, outputs, *, name: str) -> keras.metrics.Metric:
    classes = outputs.shape[-1]
    if classes == 1:
        return keras.metrics.BinaryAccuracy(name=name)
    same_rank = len(labels.shape) == len(outputs.shape)
    if same_rank and labels.shape[-1] == classes:
        return keras.metrics.CategoricalAccuracy(name=name)
    return keras.metrics.SparseCategoricalAccuracy(name=name)


# === Meters ===

# Metrics that take the number of a class; MixUp's labels are shares of several.
_OF_NUMBERS = (
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseTopKCategoricalAccuracy,
)


class Meters:
    """The mean loss and the metrics over the batches of an epoch.

    Args:
        metrics: Keras metrics that are fed labels and outputs.
    """

    def __init__(self, metrics: Sequence[keras.metrics.Metric]):
        self.loss = keras.metrics.Mean(name="loss")
        self.metrics = list(metrics)

    @property
    def all(self) -> tuple[keras.metrics.Metric, ...]:
        """The loss and the metrics."""
        return (self.loss, *self.metrics)

    def update(self, loss, count, labels, outputs, present) -> None:
        """Takes in one batch of one replica."""
        self.loss.update_state(loss, sample_weight=count)
        # As Keras: a metric of the user's may not take weights.
        weights = {} if present is None else {"sample_weight": present}
        mixed = shares(labels, outputs)
        for metric in self.metrics:
            of_numbers = mixed and isinstance(metric, _OF_NUMBERS)
            true = tf.argmax(labels, axis=-1) if of_numbers else labels
            metric.update_state(true, outputs, **weights)

    def reset(self) -> None:
        """Begins anew."""
        for metric in self.all:
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """The figures so far, by Keras's names."""
        found: dict[str, float] = {}
        for metric in self.all:
            result = metric.result()
            named = result if isinstance(result, dict) else {metric.name: result}
            found |= {key: _plain(value) for key, value in named.items()}
        return found


def _plain(value):
    value = keras.ops.convert_to_numpy(value)
    return float(value) if value.ndim == 0 else value
