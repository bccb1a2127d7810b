"""Adam's step as the one op that TensorFlow has for it.

Keras makes it of a dozen ops, each of which goes through memory: twice the time on a
CPU. The op takes 1 - beta_2 of rounded numbers, in float32 0.00100005 for 0.001; that
and nothing else is why its steps differ from Keras's, in the fifth digit.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

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
    # tests/training/test_adam.py notices when they change.
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
