"""Moving averages of the weights, which often generalize better than the last weights.

Polyak and Juditsky 1992. The momentum grows in the first updates, as in TensorFlow's
`ExponentialMovingAverage`. Tested in tests/training/loop/test_update.py.
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class MovingAverages:
    """Exponential moving averages of variables.

    Args:
        variables: The variables.
        momentum: The fraction of an average that an update keeps, in (0, 1); 0 for no
            averages.
        strategy: The strategy in whose scope the variables are.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        *,
        momentum: float,
        strategy: tf.distribute.Strategy,
    ):
        self.momentum = momentum
        self.variables = list(variables) if momentum else []
        with strategy.scope():
            self.by_id = {
                id(variable): tf.Variable(variable.value, trainable=False)
                for variable in self.variables
            }

    def update(self, variable: keras.Variable, iterations: tf.Tensor) -> None:
        """Moves a variable's average towards its new value, in a replica's update."""
        average = self.by_id.get(id(variable))
        if average is None:
            return
        updates = tf.cast(tf.convert_to_tensor(iterations), tf.float32) + 1.0
        rate = 1.0 - tf.minimum(self.momentum, updates / (updates + 9.0))
        step = tf.cast(rate, average.dtype) * (variable.value - average)
        average.assign_add(step)

    def swap(self) -> None:
        """Exchanges the values of the weights and of the averages."""
        for variable in self.variables:
            average = self.by_id[id(variable)]
            # A copy: `numpy` may return the memory of the variable itself.
            current = tf.identity(variable.value)
            variable.assign(average)
            average.assign(current)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Sets the weights to the averages in a context, for evaluating and saving."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
