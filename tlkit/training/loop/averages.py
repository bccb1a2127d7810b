"""Moving averages of the weights, which often generalize better than the last ones.

Polyak and Juditsky 1992; with a share that grows in the first steps, as in
TensorFlow's `ExponentialMovingAverage`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class Averages:
    """Averages of variables, kept beside them.

    Args:
        variables: What is averaged.
        momentum: Share of an average that stays in an update, in (0, 1); 0 for none.
        strategy: Where the variables are.
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

    def follow(self, variable: keras.Variable, iterations: tf.Tensor) -> None:
        """Takes in the new value of a variable, in a replica's update."""
        average = self.by_id.get(id(variable))
        if average is None:
            return
        done = tf.cast(tf.convert_to_tensor(iterations), tf.float32) + 1.0
        share = 1.0 - tf.minimum(self.momentum, done / (done + 9.0))
        step = tf.cast(share, average.dtype) * (variable.value - average)
        average.assign_add(step)

    def exchange(self) -> None:
        """Puts the averages where the weights are, and the weights where they were."""
        for variable in self.variables:
            average = self.by_id[id(variable)]
            # A copy: `numpy` may give the memory of the variable itself.
            current = tf.identity(variable.value)
            variable.assign(average)
            average.assign(current)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the averages for a while, to be measured and saved."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
