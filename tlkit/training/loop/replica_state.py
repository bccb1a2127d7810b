"""State that each replica holds for itself: batch-norm statistics and dropout seeds.

Under a strategy each replica's batch norms average over its own examples; a saved model
would hold the statistics of the first replica only. Here their mean is computed.

Keras's random layers count their draws in a seed generator. The counts of all replicas
are equal, so all would drop the same units, and checkpoints would have to store them.
Here each step computes the generators' states from the seed, the step and the replica.
"""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf


def make_statistics_merge(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> Callable[[], None]:
    """Makes a function that sets each variable to its mean over all replicas.

    All workers must call it. Only floating-point variables are merged: counters and
    seeds are equal in all replicas.
    """
    values = [v.value for v in variables if v.dtype.startswith(("float", "bfloat"))]
    if strategy.num_replicas_in_sync == 1 or not values:
        return lambda: None

    def merge_in_replica():
        context = tf.distribute.get_replica_context()
        # Collectives take tensors that were created on the replica's device.
        replica_values = [tf.identity(value) for value in values]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, replica_values)
        for value, mean in zip(values, means, strict=True):
            value.assign(mean)

    return tf.function(lambda: strategy.run(merge_in_replica), autograph=False)


def seed_generators(model: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the states of all seed generators in a model, in the order of its layers.

    Keras tracks generators that are attributes of layers, at any depth. A layer that
    draws random numbers without one (`keras.random.normal(…)` without a seed,
    `tf.random.normal`) cannot be made reproducible.

    Returns:
        Integer variables `[2]`, each one once.
    """
    weights = {id(variable) for variable in model.weights}
    # Keras documents `variables` as the weights and the states of seed generators.
    states = {id(v): v for v in model.variables if id(v) not in weights}
    return list(states.values())


def set_seeds(
    generators: Sequence[keras.Variable],
    seed: int,
    step: tf.Tensor | int,
    replica: tf.Tensor | int,
) -> None:
    """Sets the generators' states for one step of one replica, in its context.

    Args:
        generators: The result of `seed_generators`.
        seed: The seed of the run.
        step: Scalar integer: the number of batches that the run has had before.
        replica: Scalar integer: the index of the replica.
    """
    if not generators:
        return
    # 32 bits, since XLA does not support 64-bit seeds on all devices.
    run = tf.constant(seed % 2**31, tf.int32)
    key = tf.stack([run, tf.cast(step, tf.int32)])
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(replica, tf.int32))
    # One draw for all generators. The default algorithm would depend on the device.
    states = tf.random.stateless_uniform(
        (len(generators), 2), key, None, None, tf.uint32, alg="philox"
    )
    for generator, state in zip(generators, tf.unstack(states), strict=True):
        generator.assign(tf.cast(state, generator.dtype))
