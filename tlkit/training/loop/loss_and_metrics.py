"""Computes the loss over the global batch and the metrics over an epoch, with Keras's.

Tested in tests/training/loop/test_step.py and test_compiled_model.py.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ...errors import TrainingError
from .compiled_model import has_soft_labels, is_index_loss, reads_inputs

# Metrics of class indices. They do not take MixUp's soft labels.
_INDEX_METRICS = (
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseTopKCategoricalAccuracy,
)
_SUMS = ("sum", "none", None)


class GlobalLoss:
    """Computes the loss over all examples of an update, on all replicas.

    Keras divides by the examples of one replica and then by the number of replicas, so
    the examples of an uneven last batch have other weights. Here the mean loss of a
    replica's batch is multiplied by the number of its examples, and the total over all
    batches of the update is divided by the number of all examples. If one batch of one
    replica makes an update, Keras's loss is used unchanged.

    Args:
        model: The model, compiled and built by `compiled`.
        replicas: The replicas of the strategy.
        single: Whether one batch of one replica makes an update.

    Raises:
        TrainingError: The losses cannot be summed over several batches.
    """

    def __init__(self, model: keras.Model, *, replicas: int = 1, single: bool = True):
        self.model, self.replicas, self.single = model, replicas, single
        compiled = model._compile_loss
        self.losses = [one.loss for one in compiled._flat_losses] if compiled else []
        self.reductions = {loss.reduction for loss in self.losses}
        self.overridden = reads_inputs(model)
        self._is_sum = bool(self.losses) and self.reductions <= set(_SUMS)
        if single:
            return
        if self.reductions & set(_SUMS) and not self._is_sum:
            raise TrainingError(
                "Losses that are sums and losses that are means cannot be added over "
                "several replicas or accumulated batches. Give all losses of the model "
                f"one reduction; got {sorted(map(str, self.reductions))}."
            )
        if replicas > 1 and self.overridden:
            raise TrainingError(
                f"{type(model).__name__}.compute_loss cannot be used on {replicas} "
                "replicas, since it is not known how its result depends on the number "
                "of examples. Give loss=…, or train on one device."
            )
        for loss in self.losses if replicas > 1 else ():
            if type(loss).__call__ is not keras.losses.Loss.__call__:
                raise TrainingError(
                    f"{type(loss).__name__}.__call__ cannot be used on {replicas} "
                    "replicas, since it replaces Keras's reduction. Override `call`, "
                    "which returns one value for each example."
                )

    def value(
        self,
        inputs,
        labels,
        outputs,
        weights,
        present=None,
        *,
        training: bool,
        static: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the loss of one batch of one replica, without regularization.

        Args:
            inputs: The model's inputs; only an overridden `compute_loss` reads them.
            labels: The true values, as the model's `compile` describes.
            outputs: The model's outputs, with Keras's masks.
            weights: `[batch]`, `[batch, steps]`, a nest of them, or `None`.
            present: Float32 `[batch]`, 0 for examples that only pad the batch, or
                `None` if there are none.
            training: Whether the model trains.
            static: Whether shapes must stay static: padding examples are then given the
                weight 0, otherwise they are left out.

        Returns:
            Two float32 scalars: the loss to differentiate, which is the mean over the
            examples or their sum; and the mean loss to display.
        """
        if self.overridden:
            value = self.model._compute_loss(
                inputs, labels, outputs, weights, training=training
            )
            value = tf.cast(value, tf.float32)
            return tf.reduce_sum(value), tf.reduce_mean(value)
        if not self.losses and not self.model.losses:
            raise no_loss_error()
        if not self.losses:
            return tf.constant(0.0), tf.constant(0.0)
        factor = 1.0
        if present is not None and static:
            factor = self._padding_factor(outputs, present)
            labels, weights = self._without_padding(labels, outputs, weights, present)
        elif present is not None:
            # A replica with nothing but padding keeps one example, whose loss is
            # multiplied by 0.
            factor = tf.sign(tf.reduce_sum(present))
            first = tf.equal(tf.range(tf.size(present)), 0) & tf.equal(factor, 0.0)
            keep = (present > 0) | first
            labels, outputs, weights = _rows((labels, outputs, weights), keep)
        loss = self.model._compile_loss
        if has_soft_labels(labels, outputs):
            loss = _soft_label_loss(self.losses[0]) or loss
        value = tf.cast(loss(labels, outputs, sample_weight=weights), tf.float32)
        if not self._is_sum:
            value *= factor * self.replicas  # since Keras has divided by the replicas
            return value, value
        total = tf.reduce_sum(value) * factor  # without a reduction: as the gradient
        by_example = not self.reductions & {"sum"}
        return total, tf.reduce_mean(value) if by_example else total * self.replicas

    def count(self, weights, present, size: tf.Tensor) -> tf.Tensor:
        """Returns the factor that turns a batch's mean loss into its total loss.

        It is the number of examples; or the sum of their weights, by which
        `mean_with_sample_weight` divides.

        Args:
            weights, present: As for `value`.
            size: The number of examples, with those that pad the batch.
        """
        by_weights = self.reductions == {"mean_with_sample_weight"}
        if by_weights and weights is not None and not keras.tree.is_nested(weights):
            return tf.reduce_sum(_of_present(weights, present))
        return tf.cast(size, tf.float32) if present is None else tf.reduce_sum(present)

    def divisor(self, count: tf.Tensor) -> tf.Tensor:
        """Returns the divisor of an update's total loss, from the sum of its counts."""
        return tf.ones_like(count) if self._is_sum else tf.maximum(count, 1e-12)

    def total(self, value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Returns the contribution of a batch to the total loss."""
        return value if self._is_sum else value * count

    def added_loss_factor(self, count: tf.Tensor, batches: tf.Tensor) -> tf.Tensor:
        """Returns the factor on the losses that layers add to a batch's loss.

        Over an update, the factors sum to the divisor, so added losses are averaged.

        Args:
            count: That of this batch, on this replica.
            batches: Batches in one update: replicas times micro-batches.
        """
        return tf.ones_like(count) / batches if self._is_sum else count

    def _without_padding(self, labels, outputs, weights, present):
        """Returns labels and weights that exclude padding examples from the loss."""
        if weights is None:
            weights = present
        else:
            weights = keras.tree.map_structure(
                lambda w: _of_present(w, present), weights
            )
        output = keras.tree.flatten(outputs)[0]
        if (mask := _mask(output)) is not None:
            output._keras_mask = mask & _like(present > 0, mask)
        if (ignored := self._ignored_class()) is not None:
            keep = _like(present > 0, labels)
            labels = tf.where(keep, labels, tf.cast(ignored, labels.dtype))
        return labels, weights

    def _padding_factor(self, outputs, present) -> tf.Tensor | float:
        """Returns the factor that corrects a mean whose divisor counts padding."""
        masked = any(_mask(x) is not None for x in keras.tree.flatten(outputs))
        masked |= self._ignored_class() is not None
        if masked and len(self.losses) > 1:
            raise TrainingError(
                "With jit_compile or on a TPU, a model with several losses cannot have "
                "masks. Leave jit_compile out."
            )
        if masked or self._is_sum or self.reductions == {"mean_with_sample_weight"}:
            return 1.0  # padding examples are not in the divisor
        size = tf.cast(tf.size(present), tf.float32)
        return tf.math.divide_no_nan(size, tf.reduce_sum(present))

    def _ignored_class(self) -> int | None:
        return getattr(self.losses[0], "ignore_class", None) if self.losses else None


def _rows(nest: Any, keep: tf.Tensor) -> Any:
    """Returns the rows of all tensors and masks of a nest where `keep` is true."""

    def rows(tensor):
        if tensor is None:
            return None
        kept = tf.boolean_mask(tensor, keep)
        if (mask := _mask(tensor)) is not None:
            kept._keras_mask = tf.boolean_mask(mask, keep)
        return kept

    return keras.tree.map_structure(rows, nest)


def _mask(output: tf.Tensor) -> tf.Tensor | None:
    return getattr(output, "_keras_mask", None)


def _like(column: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Reshapes `column`, `[batch]`, to `[batch, 1, …]` with the rank of `like`."""
    axes = len(like.shape) - 1
    return tf.cast(
        tf.reshape(column, [-1] + [1] * axes),
        column.dtype if column.dtype == tf.bool else like.dtype,
    )


def _of_present(weights: tf.Tensor, present: tf.Tensor | None) -> tf.Tensor:
    """Returns weights as float32, with 0 for the examples that only pad the batch."""
    weights = tf.cast(weights, tf.float32)
    return weights if present is None else weights * _like(present, weights)


def _soft_label_loss(loss: keras.losses.Loss) -> Callable | None:
    """Returns the loss for class probabilities that matches one for class indices."""
    if not is_index_loss(loss):
        return None
    arguments = getattr(loss, "_fn_kwargs", {})
    return keras.losses.CategoricalCrossentropy(
        from_logits=arguments.get("from_logits", False),
        reduction=loss.reduction,
        dtype=loss.dtype,
    )


def no_loss_error() -> TrainingError:
    """Returns the error of a model without any loss."""
    return TrainingError(
        'No loss is given. Give fit loss="sparse_categorical_crossentropy", for '
        "example, or compile the model: model.compile(loss=…)."
    )


def masks_of(outputs: Any) -> list:
    """Returns each output's mask; () for none, since XLA cannot return `None`."""
    masks = [_mask(output) for output in keras.tree.flatten(outputs)]
    return [() if mask is None else mask for mask in masks]


def set_masks(outputs: Any, masks: list) -> None:
    """Gives each output the mask that `masks_of` returned for it."""
    for output, mask in zip(keras.tree.flatten(outputs), masks, strict=True):
        if not isinstance(mask, tuple):
            output._keras_mask = mask


def layer_losses(model: keras.Model) -> tf.Tensor:
    """Sums regularization and the losses that layers added, as a float32 scalar."""
    losses = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in model.losses]
    return tf.add_n(losses) if losses else tf.constant(0.0)


def batch_size(inputs: Any) -> tf.Tensor:
    """Returns the number of examples in a batch of inputs."""
    return tf.shape(keras.tree.flatten(inputs)[0])[0]


# === Metrics ===


class EpochMetrics:
    """The mean loss and the metrics over the batches of an epoch.

    Args:
        model: The model, compiled and built by `compiled`.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    @property
    def all(self) -> list[keras.metrics.Metric]:
        """The loss, the metrics of `compile` and those of the model and its layers."""
        loss, compiled = self.model._loss_tracker, self.model._compile_metrics
        known = {id(compiled), id(loss)}
        others = [m for m in self.model.metrics if id(m) not in known]
        return [loss, *(compiled.metrics if compiled else []), *others]

    def update(
        self, loss, labels, outputs, weights, present, size, *, static: bool = False
    ) -> None:
        """Adds one batch of one replica.

        Args:
            loss: Its mean loss.
            labels, outputs, weights, present: As for `GlobalLoss.value`.
            size: The number of examples, with those that pad the batch.
            static: Whether shapes must stay static: padding examples are then given the
                weight 0, otherwise they are left out.
        """
        count = size if present is None else tf.reduce_sum(present)
        self.model._loss_tracker.update_state(loss, sample_weight=count)
        compiled = self.model._compile_metrics
        if compiled is None:
            return
        if present is not None and not static:
            labels, outputs, weights = _rows((labels, outputs, weights), present > 0)
            present = None
        if present is None and not has_soft_labels(labels, outputs):
            compiled.update_state(labels, outputs, sample_weight=weights)
            return
        self._update_each(compiled, labels, outputs, weights, present)

    def _update_each(self, compiled, labels, outputs, weights, present) -> None:
        labels, outputs = compiled._flatten_y(labels), compiled._flatten_y(outputs)
        weights = [] if weights is None else compiled._flatten_y(weights)
        weights = list(weights) * (len(labels) if len(weights) == 1 else 1)
        weights = [_of_present(w, present) for w in weights]
        ones = [present] * len(labels)
        for lists, by_output in (
            (compiled._flat_metrics, ones),
            (compiled._flat_weighted_metrics, weights or ones),
        ):
            for metrics, true, output, weight in zip(
                lists, labels, outputs, by_output, strict=True
            ):
                soft = has_soft_labels(true, output)
                for metric in metrics.metrics if metrics else ():
                    to_index = soft and _takes_indices(metric)
                    values = tf.argmax(true, axis=-1) if to_index else true
                    # As in Keras, passed only if needed: a metric may not take them.
                    options = {} if weight is None else {"sample_weight": weight}
                    metric.update_state(values, output, **options)

    def reset(self) -> None:
        """Resets the loss and all metrics."""
        self.model.reset_metrics()

    def results(self) -> dict[str, Any]:
        """Returns the current results by Keras's names."""
        results = self.model.get_metrics_result()
        return {name: _to_float(value) for name, value in results.items()}


def _takes_indices(metric: keras.metrics.Metric) -> bool:
    return isinstance(metric, _INDEX_METRICS) or (
        getattr(metric, "_fn", None) is keras.metrics.sparse_categorical_accuracy
    )


def _to_float(value):
    value = keras.ops.convert_to_numpy(value)
    return float(value) if value.ndim == 0 else value
