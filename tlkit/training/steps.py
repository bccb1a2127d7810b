"""The step functions: one batch moves the weights, or is only measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .objectives import Objective

# A batch, as the loop hands it out: inputs, labels, weights and `present`. The last two
# are () where every example counts as one.
Batch = tuple[Any, Any, Any, Any]


class Meters:
    """The mean loss and the metrics over the batches of an epoch.

    Args:
        metrics: Keras metrics that are fed labels and outputs.
    """

    def __init__(self, metrics: Sequence[keras.metrics.Metric]):
        self.loss = keras.metrics.Mean(name="loss")
        self.metrics = list(metrics)

    def update(self, loss, count, labels, outputs, present) -> None:
        """Takes in one batch of one replica."""
        self.loss.update_state(loss, sample_weight=count)
        for metric in self.metrics:
            metric.update_state(labels, outputs, sample_weight=present)

    def reset(self) -> None:
        """Begins anew."""
        for metric in (self.loss, *self.metrics):
            metric.reset_state()

    def results(self, prefix: str = "") -> dict[str, float]:
        """The figures so far, by Keras's names."""
        found: dict[str, float] = {}
        for metric in (self.loss, *self.metrics):
            result = metric.result()
            named = result if isinstance(result, dict) else {metric.name: result}
            found |= {prefix + key: _plain(value) for key, value in named.items()}
        return found


def _plain(value):
    value = keras.ops.convert_to_numpy(value)
    return float(value) if value.ndim == 0 else value


def make_train_step(
    model: keras.Model,
    variables: Sequence[keras.Variable],
    *,
    optimizer: keras.optimizers.Optimizer,
    objective: Objective,
    meters: Meters,
    strategy: tf.distribute.Strategy,
    signature: Any,
    added_loss: Callable[[], tf.Tensor] | None = None,
) -> Callable[[Batch], tf.Tensor]:
    """Makes the function that trains on one batch.

    It is traced once, so it holds for one state of `trainable`: a phase makes its own.

    Args:
        model: The model, or the part of it that is trained.
        variables: What the optimizer moves.
        optimizer: Built for these variables, and perhaps others.
        objective: The loss.
        meters: Take in every batch.
        strategy: Where it runs.
        signature: The spec of a batch.
        added_loss: Gives a scalar that is added to the loss, whatever the batch.

    Returns:
        A function of a batch, which gives the loss over all replicas.
    """

    def replica_step(inputs, labels, weights, present):
        weights, present = _given(weights), _given(present)
        # Watching what is trained and nothing else keeps frozen blocks off the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in variables:
                tape.watch(variable.value)
            outputs = model(inputs, training=True)
            total, count = objective.sums(labels, outputs, weights, present)
            share = total / objective.divisor(_over_replicas(strategy, count))
            extra = _extra_losses(model) + (added_loss() if added_loss else 0.0)
            loss = share + extra / strategy.num_replicas_in_sync
            scaled = optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        # What no output depends on has no gradient, and must not decay either.
        pairs = [
            (gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        # Under a strategy, Keras sums the gradients over the replicas here.
        optimizer.apply(*zip(*pairs, strict=True))
        own = total / objective.divisor(count) + extra
        meters.update(own, count, labels, outputs, present)
        return _over_replicas(strategy, loss)

    @tf.function(input_signature=[signature], autograph=False)
    def train_step(batch):
        losses = strategy.run(replica_step, args=batch)
        return strategy.experimental_local_results(losses)[0]

    return train_step


def make_test_step(
    model: keras.Model,
    *,
    objective: Objective,
    meters: Meters,
    strategy: tf.distribute.Strategy,
    signature: Any,
) -> Callable[[Batch], None]:
    """Makes the function that measures one batch; arguments as for training."""

    def replica_step(inputs, labels, weights, present):
        weights, present = _given(weights), _given(present)
        outputs = model(inputs, training=False)
        total, count = objective.sums(labels, outputs, weights, present)
        own = total / objective.divisor(count) + _extra_losses(model)
        meters.update(own, count, labels, outputs, present)

    @tf.function(input_signature=[signature], autograph=False)
    def test_step(batch):
        strategy.run(replica_step, args=batch)

    return test_step


def _given(value):
    return None if isinstance(value, tuple) else value


def _extra_losses(model: keras.Model) -> tf.Tensor:
    """Regularization and what layers added in this call."""
    losses = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in model.losses]
    return tf.add_n(losses) if losses else tf.constant(0.0)


def _over_replicas(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    if strategy.num_replicas_in_sync == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
