"""What each replica keeps for itself becomes one: the statistics of batch norms.

Under a strategy each replica's batch norms follow its own examples, and a saved model
would have those of the first replica only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


def make_merge(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> Callable[[], None]:
    """Makes a function that gives all replicas the mean of their values.

    Args:
        strategy: Where the variables are.
        variables: What moves without the optimizer. Only numbers with a fraction are
            averaged: counters and seeds go the same way everywhere.

    Returns:
        The function; all workers call it.
    """
    kept = [v.value for v in variables if v.dtype.startswith(("float", "bfloat"))]
    if strategy.num_replicas_in_sync == 1 or not kept:
        return lambda: None

    def in_replica():
        context = tf.distribute.get_replica_context()
        # Collectives take tensors that were made on the replica's device.
        own = [tf.identity(variable) for variable in kept]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
        for variable, mean in zip(kept, means, strict=True):
            variable.assign(mean)

    return tf.function(lambda: strategy.run(in_replica), autograph=False)
