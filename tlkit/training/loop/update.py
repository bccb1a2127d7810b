"""One update of the weights: clip, decay, step, average.

Keras's `optimizer.apply` clips the gradients before it sums them over the replicas, and
meets the other replicas in the middle, which cannot be done inside a condition
(keras-team/keras#17429). Here gradients are summed before; each replica then updates
its own copy of a weight, all by the same numbers, and none waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ...errors import TrainingError
from .adam import Step, adam_step
from .averages import Averages
from .optimizer import has_schedule
from .update_counts import update_counts

# Of the gradients (`None` for a variable that has none) and the learning rate.
Update = Callable[[Sequence[tf.Tensor | None], tf.Tensor], None]


def make_update(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    *,
    factors: Sequence[float],
    averages: Averages,
) -> Update:
    """Makes the function that moves variables, to be called in every replica.

    Args:
        optimizer: Built for the variables.
        variables: What moves.
        factors: For each variable, what its learning rate is multiplied by.
        averages: Those that follow the variables.

    Returns:
        A function of the gradients, summed over all replicas, and the learning rate of
        a variable whose factor is 1. What has no gradient stays.
        It does not count the optimizer's iterations if `counts_itself` says so.
    """
    if counts_itself(optimizer):
        return _keras_update(optimizer, variables, factors, averages)

    fixed = has_schedule(optimizer)
    counts = update_counts(optimizer)
    step = counts.counted(adam_step(optimizer) or optimizer.update_step)

    def update(gradients, rate):
        rate = tf.convert_to_tensor(optimizer.learning_rate) if fixed else rate
        gradients, moved, own = _with_gradient(gradients, variables, factors)
        if optimizer.loss_scale_factor:
            gradients = [g / optimizer.loss_scale_factor for g in gradients]
        gradients = _clipped(optimizer, gradients)
        for gradient, variable, factor in zip(gradients, moved, own, strict=True):
            _move(optimizer, step, variable, gradient, rate * factor)
            averages.follow(variable, optimizer.iterations)

    return update


def counts_itself(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer has to be applied by Keras, which counts its iterations.

    These do something of their own around the steps of single variables: loss scaling,
    Nadam's product of momenta, Keras's moving average.
    """
    plain = keras.optimizers.Optimizer
    own = type(optimizer)
    # Private, and what Nadam and Muon override (Keras 3.13 to 3.15).
    # tests/training/test_updating.py notices when it changes.
    names = ("_backend_update_step", "_apply_weight_decay", "apply")
    same = all(getattr(own, name) is getattr(plain, name) for name in names)
    return not same or optimizer.use_ema


def check_replicas(optimizer: keras.optimizers.Optimizer, replicas: int) -> None:
    """Refuses what an optimizer cannot do on several replicas.

    Raises:
        TrainingError: Keras would have to apply it.
    """
    if replicas > 1 and counts_itself(optimizer):
        raise TrainingError(
            f"{type(optimizer).__name__} cannot be used on {replicas} replicas: Keras "
            "clips before it sums over them, and looks at the first replica only. Use "
            "AdamW, Adam, SGD, Lion or another plain optimizer without use_ema "
            "(tlkit.fit(…, ema=0.999) averages too), or a single device."
        )


def _with_gradient(gradients, *others):
    rows = [r for r in zip(gradients, *others, strict=True) if r[0] is not None]
    return list(zip(*rows, strict=True)) if rows else [()] * (1 + len(others))


def _move(optimizer, step: Step, variable: keras.Variable, gradient, rate) -> None:
    value = variable.value
    # `_use_weight_decay` is private; `exclude_from_weight_decay` is what users call.
    # tests/training/test_updating.py notices when it changes.
    if optimizer.weight_decay is not None and optimizer._use_weight_decay(value):
        decay = tf.cast(rate, value.dtype) * optimizer.weight_decay
        value.assign_sub(value * decay)
    step(gradient, value, rate)
    if variable.constraint is not None:
        variable.assign(variable.constraint(variable))


def _clipped(optimizer, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    if optimizer.global_clipnorm is not None:
        return tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0]
    if optimizer.clipnorm is not None:
        return [tf.clip_by_norm(g, optimizer.clipnorm) for g in gradients]
    if optimizer.clipvalue is not None:
        limit = optimizer.clipvalue
        return [tf.clip_by_value(g, -limit, limit) for g in gradients]
    return gradients


def _keras_update(optimizer, variables, factors, averages: Averages) -> Update:
    if any(factor != 1.0 for factor in factors):
        raise TrainingError(
            f"{type(optimizer).__name__} has one learning rate for all variables, so "
            "layer_decay must be 1. Use AdamW, Adam, SGD or another plain optimizer."
        )

    counts = update_counts(optimizer)

    def update(gradients, rate):
        del rate  # set from outside, where a schedule of its own allows it
        gradients, moved, _ = _with_gradient(gradients, variables, factors)
        with counts.applied_by_keras():
            optimizer.apply(gradients, moved)
        for variable in moved:
            averages.follow(variable, optimizer.iterations - 1)

    return update
