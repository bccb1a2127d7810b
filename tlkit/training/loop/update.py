"""One update of the weights: clip, decay, step, average.

Keras's `optimizer.apply` clips the gradients before it sums them over the replicas, and
meets the other replicas in the middle, which cannot be done inside a condition
(keras-team/keras#17429). Here gradients are summed before; each replica then updates
its own copy of a weight, all by the same numbers, and none waits for another.

Adam's step as the one op that TensorFlow has for it.

Keras makes it of a dozen ops, each of which goes through memory: twice the time on a
CPU. The op takes 1 - beta_2 of rounded numbers, in float32 0.00100005 for 0.001; that
and nothing else is why its steps differ from Keras's, in the fifth digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ...errors import TrainingError
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
    # tests/training/loop/test_update.py notices when it changes.
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
    # tests/training/loop/test_update.py notices when it changes.
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


# === Adam ===

# Of a gradient, a weight and its learning rate.
Step = Callable[[tf.Tensor, tf.Variable, tf.Tensor], None]


def adam_step(optimizer: keras.optimizers.Optimizer) -> Step | None:
    """The step of Adam or AdamW, without the weight decay.

    Args:
        optimizer: Built.

    Returns:
        A function that stands for `optimizer.update_step`, or `None` if this is another
        optimizer, or Adam in a form that the op does not know.
    """
    # Private names, known for Keras 3.13 to 3.15. Without them Keras makes the step.
    # tests/training/loop/test_adam.py notices when they change.
    names = ("_momentums", "_velocities", "_get_variable_index")
    if not _is_adam(optimizer) or not all(hasattr(optimizer, name) for name in names):
        return None

    def step(gradient, value, rate):
        if value.dtype not in (tf.float32, tf.float64):
            # Half precision has no number between 0.99 and 1 that beta_2 could be.
            optimizer.update_step(gradient, value, rate)
            return
        index = optimizer._get_variable_index(value)
        to_own = lambda number: tf.cast(number, value.dtype)
        passed = to_own(optimizer.iterations + 1)
        first, second = to_own(optimizer.beta_1), to_own(optimizer.beta_2)
        tf.raw_ops.ResourceApplyAdam(
            var=value.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=tf.pow(first, passed),
            beta2_power=tf.pow(second, passed),
            lr=to_own(rate),
            beta1=first,
            beta2=second,
            epsilon=to_own(optimizer.epsilon),
            grad=to_own(gradient),
        )

    return step


def _is_adam(optimizer: keras.optimizers.Optimizer) -> bool:
    adam = keras.optimizers.Adam
    if not isinstance(optimizer, adam) or optimizer.amsgrad:
        return False
    return type(optimizer).update_step is adam.update_step
