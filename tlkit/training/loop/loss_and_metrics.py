"""The loss over the global batch and the metrics over an epoch, from Keras's own.

Tested in tests/training/loop/test_step.py.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ...errors import TrainingError

# Metrics of class indices. They do not take MixUp's soft labels.
_INDEX_METRICS = (
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseTopKCategoricalAccuracy,
)


class GlobalLoss:
    """Computes a loss over the examples of all replicas and micro-batches of an update.

    Keras divides by the examples of one replica and then by the number of replicas, so
    the examples of an uneven last batch have other weights. Here each replica sums the
    losses of its examples, and the total is divided by the number of all examples.

    Args:
        loss: A Keras loss, a function `(labels, outputs) -> values`, or a name.
    """

    def __init__(self, loss: keras.losses.Loss | Callable | str):
        self.keras_loss = _loss_object(loss)
        self.reduction = self.keras_loss.reduction

    def sums(self, labels, outputs, weights, present) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the weighted sum of the examples' losses and its divisor.

        Args:
            labels: The true values, `[batch, …]`.
            outputs: The model's outputs, `[batch, …]`.
            weights: Float32 `[batch]`, or `None` for 1 each.
            present: Float32 `[batch]`, 0 for examples that only pad the batch, or
                `None` if there are none.

        Returns:
            Two float32 scalars, of this replica alone.
        """
        size = tf.shape(tf.nest.flatten(outputs)[0])[0]
        loss = self.keras_loss
        if has_soft_labels(labels, outputs):
            loss = _soft_label_loss(loss)
        with _without_reduction(loss):
            values = loss(labels, outputs, sample_weight=weights)
        if values.shape.rank == 0:  # a user's function that averages itself
            values = tf.repeat(values, size)
        values = tf.reshape(tf.cast(values, tf.float32), (size, -1))
        reduce = tf.reduce_sum if self._is_sum else tf.reduce_mean
        losses = reduce(values, axis=1)
        present = tf.ones_like(losses) if present is None else present
        total = tf.reduce_sum(losses * present)
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            return total, tf.reduce_sum(weights * present)
        return total, tf.reduce_sum(present)

    @property
    def _is_sum(self) -> bool:
        return self.reduction == "sum"

    def divisor(self, count: tf.Tensor) -> tf.Tensor:
        """Returns the divisor of the total loss, from the total of the counts."""
        return tf.ones_like(count) if self._is_sum else tf.maximum(count, 1e-12)

    def added_loss_factor(self, count: tf.Tensor, batches: tf.Tensor) -> tf.Tensor:
        """Returns the factor on a batch's added losses; over an update they sum to one.

        Args:
            count: The divisor from `sums` for this batch, on this replica.
            batches: Batches in one update: replicas times micro-batches.
        """
        return tf.ones_like(count) / batches if self._is_sum else count


def has_soft_labels(labels, outputs) -> bool:
    """Returns whether labels are class probabilities, as MixUp and CutMix make them."""
    same_rank = labels.shape.rank == outputs.shape.rank
    classes = outputs.shape[-1]
    return same_rank and labels.shape[-1] == classes != 1 and labels.dtype.is_floating


def _soft_label_loss(loss: keras.losses.Loss) -> keras.losses.Loss:
    if not isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        return loss
    return keras.losses.CategoricalCrossentropy(
        from_logits=loss.from_logits, reduction=loss.reduction, dtype=loss.dtype
    )


@contextlib.contextmanager
def _without_reduction(loss: keras.losses.Loss) -> Iterator[None]:
    # Not on a copy: a copy needs a config, which a user's loss may lack.
    before, loss.reduction = loss.reduction, None
    try:
        yield
    finally:
        loss.reduction = before


def _loss_object(loss) -> keras.losses.Loss:
    loss_or_function = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(loss_or_function, keras.losses.Loss):
        return loss_or_function
    if callable(loss_or_function):
        return _FunctionLoss(loss_or_function)
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
        # As in Keras, labels get the rank of the outputs.
        if labels.shape.rank == outputs.shape.rank - 1 and outputs.shape[-1] == 1:
            labels = tf.expand_dims(labels, -1)
        return self.function(labels, outputs)


# === Metrics ===


class EpochMetrics:
    """The mean loss and the metrics over the batches of an epoch.

    Args:
        metrics: Keras metrics of labels and outputs.
    """

    def __init__(self, metrics: Sequence[keras.metrics.Metric]):
        self.loss = keras.metrics.Mean(name="loss")
        self.metrics = list(metrics)

    @property
    def all(self) -> tuple[keras.metrics.Metric, ...]:
        """The loss and the metrics."""
        return (self.loss, *self.metrics)

    def update(self, loss, count, labels, outputs, present) -> None:
        """Adds one batch of one replica."""
        self.loss.update_state(loss, sample_weight=count)
        # As in Keras, no weights without need: a user's metric may not take them.
        weights = {} if present is None else {"sample_weight": present}
        soft = has_soft_labels(labels, outputs)
        for metric in self.metrics:
            to_index = soft and isinstance(metric, _INDEX_METRICS)
            true = tf.argmax(labels, axis=-1) if to_index else labels
            metric.update_state(true, outputs, **weights)

    def reset(self) -> None:
        """Resets the loss and all metrics."""
        for metric in self.all:
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """Returns the current results by Keras's names."""
        results: dict[str, float] = {}
        for metric in self.all:
            result = metric.result()
            by_name = result if isinstance(result, dict) else {metric.name: result}
            results |= {key: _to_float(value) for key, value in by_name.items()}
        return results


def _to_float(value):
    value = keras.ops.convert_to_numpy(value)
    return float(value) if value.ndim == 0 else value


def compiled_metrics(model: keras.Model) -> list[Any]:
    """Returns new copies of the metrics that a model was compiled with."""
    config = model.get_compile_config() if model.compiled else None
    metrics = keras.saving.deserialize_keras_object((config or {}).get("metrics"))
    if metrics is None:
        return []
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def resolve_metrics(metrics: Sequence[Any], labels, outputs) -> list[Any]:
    """Returns metric objects for a user's `metrics`, as Keras's `compile` does.

    Args:
        metrics: Keras metrics, which are returned themselves; functions; or names. The
            shapes decide the kind of `"accuracy"`.
        labels: Specs of the labels.
        outputs: Specs of the model's outputs.
    """
    return [_metric(metric, labels, outputs) for metric in metrics]


def _metric(metric, labels, outputs) -> keras.metrics.Metric:
    if isinstance(metric, keras.metrics.Metric):
        return metric
    if metric in ("accuracy", "acc"):
        return _accuracy(labels, outputs, name=metric)
    if not isinstance(metric, str):
        name = getattr(metric, "__name__", "metric")
        return keras.metrics.MeanMetricWrapper(metric, name=name)
    metric_or_function = keras.metrics.get(metric)
    if isinstance(metric_or_function, keras.metrics.Metric):
        metric_or_function.name = metric  # such as "mae", not "mean_absolute_error"
        return metric_or_function
    return keras.metrics.MeanMetricWrapper(metric_or_function, name=metric)


def _accuracy(labels, outputs, *, name: str) -> keras.metrics.Metric:
    classes = outputs.shape[-1]
    if classes == 1:
        return keras.metrics.BinaryAccuracy(name=name)
    same_rank = len(labels.shape) == len(outputs.shape)
    if same_rank and labels.shape[-1] == classes:
        return keras.metrics.CategoricalAccuracy(name=name)
    return keras.metrics.SparseCategoricalAccuracy(name=name)
