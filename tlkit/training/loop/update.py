"""Updates the weights from summed gradients: clip, decay, step, average.

Keras's `optimizer.apply` clips gradients before it sums them over the replicas, and
synchronizes replicas midway, which `tf.cond` does not allow (keras-team/keras#17429).
Here gradients are summed before the update; each replica then updates its own copy of
a weight with the same numbers, without waiting for the others.

This module also scales the loss for float16. As in Keras, an update with a gradient
that is not finite is skipped, and the scale is halved.

Adam's step is TensorFlow's single op `ResourceApplyAdam`. Keras uses a dozen ops, each
of which reads and writes all weights, so its step takes twice the time on a CPU. The op
computes 1 - beta_2 from a rounded beta_2 (0.00100005 instead of 0.001 in float32), so
its steps differ from Keras's in the fifth digit.

Tested in tests/training/loop/test_update.py and test_adam.py.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ...errors import TrainingError
from .averages import MovingAverages
from .optimizer import has_schedule, innermost
from .optimizer_contract import BY_KERAS, overridden
from .update_counts import update_counts

# A useful scale is far above 1: it keeps small gradients from becoming 0 in float16.
_LOWEST_SCALE = 2.0**-10

# A function of the gradients (`None` for a variable without one) and the learning rate.
# It returns a scalar bool, whether the weights were updated.
Update = Callable[[Sequence[tf.Tensor | None], tf.Tensor], tf.Tensor]

# A function of a gradient, a weight and its learning rate.
Step = Callable[[tf.Tensor, tf.Variable, tf.Tensor], None]


def make_update(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    *,
    factors: Sequence[float],
    averages: MovingAverages,
) -> Update:
    """Makes the function that updates variables, to be called in every replica.

    Args:
        optimizer: Built for the variables.
        variables: The trained variables.
        factors: The factor on the learning rate of each variable.
        averages: Averages that follow the variables.

    Returns:
        A function of the gradients, summed over all replicas, and the learning rate of
        a variable whose factor is 1. Variables without a gradient do not change. It
        increments the optimizer's iterations only if `is_applied_by_keras`.
    """
    _check_overwritten(variables)
    if is_applied_by_keras(optimizer):
        return _keras_update(optimizer, variables, factors, averages)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = _plain_update(innermost(optimizer), variables, factors, averages)
        return _loss_scaled(optimizer, inner)
    return _plain_update(optimizer, variables, factors, averages)


def is_applied_by_keras(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether Keras, not the loop, applies an optimizer and counts iterations.

    These optimizers do more than update single variables: Nadam's product of momenta,
    Keras's moving average, and all that a user's class does in `apply`.
    """
    # tests/training/loop/test_update.py notices when Nadam or Muon change.
    return innermost(optimizer).use_ema or bool(overridden(optimizer, BY_KERAS))


def check_replicas(optimizer: keras.optimizers.Optimizer, replicas: int) -> None:
    """Rejects an optimizer that only Keras can apply, on several replicas."""
    if replicas > 1 and is_applied_by_keras(optimizer):
        raise TrainingError(
            f"{_title(optimizer)} cannot be used on {replicas} replicas: Keras "
            "clips before it sums over them, and reads the first replica only. Use "
            "AdamW, Adam, SGD, Lion or another plain optimizer without use_ema "
            "(tlkit.fit(…, ema=0.999) averages too), or a single device."
        )


def _title(optimizer: keras.optimizers.Optimizer) -> str:
    """Returns an optimizer's class, with the methods for which Keras applies it."""
    name, methods = type(innermost(optimizer)).__name__, overridden(optimizer, BY_KERAS)
    return f"{name}, which overrides {', '.join(methods)}," if methods else name


def _check_overwritten(variables: Sequence[keras.Variable]) -> None:
    overwritten = [v.path for v in variables if v.overwrite_with_gradient]
    if overwritten:
        raise TrainingError(
            f"{overwritten[0]} is overwritten by its gradient, as in float8 training, "
            "and the gradients here are means over several sums. Train with model.fit, "
            "or use another dtype policy."
        )


def _plain_update(optimizer, variables, factors, averages: MovingAverages) -> Update:
    fixed = has_schedule(optimizer)
    counts = update_counts(optimizer)
    step = counts.counted(adam_step(optimizer) or optimizer.update_step)

    def update(gradients, learning_rate):
        if fixed:
            learning_rate = tf.convert_to_tensor(optimizer.learning_rate)
        gradients, updated, updated_factors = _with_gradient(
            gradients, variables, factors
        )
        if optimizer.loss_scale_factor:
            gradients = [g / optimizer.loss_scale_factor for g in gradients]
        # Private, but users override it (Keras 3.13 to 3.15).
        # tests/training/loop/test_optimizer_contract.py notices when it changes.
        gradients = optimizer._clip_gradients(list(gradients)) if gradients else ()
        for gradient, variable, factor in zip(
            gradients, updated, updated_factors, strict=True
        ):
            _apply(optimizer, step, variable, gradient, learning_rate * factor)
            averages.update(variable, optimizer.iterations)
        return tf.constant(True)

    return update


def _loss_scaled(
    optimizer: keras.optimizers.LossScaleOptimizer, inner_update: Update
) -> Update:
    """Makes the update of a `LossScaleOptimizer` from that of its inner optimizer.

    All replicas have the same summed gradients, so each changes its own copy of the
    scale in the same way.
    """

    def update(gradients, learning_rate):
        scale = tf.convert_to_tensor(optimizer.dynamic_scale)

        def apply():
            unscaled = [
                g if g is None else g / tf.cast(scale, g.dtype) for g in gradients
            ]
            inner_update(unscaled, learning_rate)
            steps = tf.convert_to_tensor(optimizer.step_counter) + 1
            grows = steps >= optimizer.dynamic_growth_steps
            optimizer.step_counter.assign(tf.where(grows, tf.zeros_like(steps), steps))
            optimizer.dynamic_scale.assign(tf.where(grows, scale * 2.0, scale))
            return tf.constant(True)

        def skip():
            optimizer.step_counter.assign(0)
            optimizer.dynamic_scale.assign(scale * 0.5)
            return tf.constant(False)

        return tf.cond(optimizer.check_finite(gradients), apply, skip)

    return update


def check_loss_scale(optimizer: keras.optimizers.Optimizer, *, phase: str) -> None:
    """Raises a `TrainingError` if the loss scale is so low that no update was made.

    An update with a gradient that is not finite is skipped, and the scale is halved.
    That helps if the scale was too high. But if the loss is not finite, every update is
    skipped, and the scale approaches 0.
    """
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return
    scale = float(tf.convert_to_tensor(optimizer.dynamic_scale))
    if scale < _LOWEST_SCALE:
        raise TrainingError(
            f"Gradients were not finite in so many updates of phase {phase!r} that the "
            f"scale of the loss fell to {scale:.1g}. None of these updates was made. "
            "Look for non-finite numbers in the data, lower the learning rate, or use "
            'the dtype policy "mixed_bfloat16".'
        )


def _with_gradient(gradients, *others):
    """Drops the variables without a gradient from parallel sequences."""
    rows = [r for r in zip(gradients, *others, strict=True) if r[0] is not None]
    return list(zip(*rows, strict=True)) if rows else [()] * (1 + len(others))


def _apply(
    optimizer, step: Step, variable: keras.Variable, gradient, learning_rate
) -> None:
    value = variable.value
    # `_use_weight_decay` is private; `exclude_from_weight_decay` is what users call.
    # tests/training/loop/test_update.py notices when it changes.
    if optimizer.weight_decay is not None and optimizer._use_weight_decay(value):
        decay = tf.cast(learning_rate, value.dtype) * optimizer.weight_decay
        value.assign_sub(value * decay)
    step(gradient, value, learning_rate)
    if variable.constraint is not None:
        variable.assign(variable.constraint(variable))


def _keras_update(optimizer, variables, factors, averages: MovingAverages) -> Update:
    if any(factor != 1.0 for factor in factors):
        raise TrainingError(
            f"{_title(optimizer)} has one learning rate for all variables, so "
            "layer_decay must be 1. Use AdamW, Adam, SGD or another plain optimizer."
        )
    counts = update_counts(optimizer)

    def update(gradients, learning_rate):
        del learning_rate  # `LearningRate` sets it in the optimizer
        gradients, updated, _ = _with_gradient(gradients, variables, factors)
        with counts.applied_by_keras():
            optimizer.apply_gradients(zip(gradients, updated, strict=True))
        for variable in updated:
            averages.update(variable, optimizer.iterations - 1)
        return tf.constant(True)

    return update


def adam_step(optimizer: keras.optimizers.Optimizer) -> Step | None:
    """Returns the step function of Adam or AdamW, without the weight decay.

    Returns:
        A function in place of `optimizer.update_step`; `None` for other optimizers and
        for variants of Adam that the op does not support.
    """
    # Private names of Keras 3.13 to 3.15. If one is missing, Keras makes the step.
    # tests/training/loop/test_adam.py notices when they change.
    names = ("_momentums", "_velocities", "_get_variable_index")
    if not _is_adam(optimizer) or not all(hasattr(optimizer, name) for name in names):
        return None

    def step(gradient, value, learning_rate):
        if value.dtype not in (tf.float32, tf.float64):
            # bfloat16 rounds beta_2 = 0.999 to 1, and float16 to 0.99902.
            optimizer.update_step(gradient, value, learning_rate)
            return
        index = optimizer._get_variable_index(value)
        cast = lambda number: tf.cast(number, value.dtype)
        update_count = cast(optimizer.iterations + 1)
        beta_1, beta_2 = cast(optimizer.beta_1), cast(optimizer.beta_2)
        tf.raw_ops.ResourceApplyAdam(
            var=value.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, update_count),
            beta2_power=tf.pow(beta_2, update_count),
            lr=cast(learning_rate),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=cast(optimizer.epsilon),
            grad=cast(gradient),
        )

    return step


def _is_adam(optimizer: keras.optimizers.Optimizer) -> bool:
    adam = keras.optimizers.Adam
    if not isinstance(optimizer, adam) or optimizer.amsgrad:
        return False
    # A subclass may override a method that the op would replace.
    names = ("update_step", "assign", "assign_add", "assign_sub")
    return all(
        getattr(type(optimizer), name) is getattr(adam, name)
        and name not in vars(optimizer)
        for name in names
    )
