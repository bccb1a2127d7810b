"""What each replica keeps for itself becomes one: the statistics of batch norms.

Under a strategy each replica's batch norms follow its own examples, and a saved model
would have those of the first replica only.

What dropout leaves out: decided by the seed, the step and the replica alone.

Keras gives a layer that draws random numbers a generator, a variable that counts the
draws. Under a strategy every replica's copy counts alike, so all replicas leave out the
same units; and a checkpoint would have to keep the counts. Here each step writes the
generators anew.
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


# === Randomness ===


def seed_generators(model: keras.layers.Layer) -> list[keras.Variable]:
    """The states of all seed generators in a model, in the order of its layers.

    Those that Keras knows: attributes of layers, at any depth. A layer that draws
    without a generator of its own (`keras.random.normal(…)` without a seed,
    `tf.random.normal`) cannot be made to repeat itself.

    Args:
        model: A model, or a layer.

    Returns:
        Integer variables `[2]`, each one once.
    """
    weights = {id(variable) for variable in model.weights}
    # Keras says so of its `variables`: the weights, and what the seed generators keep.
    states = {id(v): v for v in model.variables if id(v) not in weights}
    return list(states.values())


def set_seeds(
    generators: Sequence[keras.Variable],
    seed: int,
    step: tf.Tensor | int,
    replica: tf.Tensor | int,
) -> None:
    """Sets all generators for one step of one replica.

    It is to be called in the replica's context, where it writes that replica's copies.

    Args:
        generators: What `seed_generators` gave.
        seed: The run's.
        step: Scalar integer: how many steps the run has made before.
        replica: Scalar integer: which of the replicas this is.
    """
    if not generators:
        return
    # 32 bits, since XLA has no seeds of 64 for all devices.
    run = tf.constant(seed % 2**31, tf.int32)
    key = tf.stack([run, tf.cast(step, tf.int32)])
    key = tf.random.experimental.stateless_fold_in(key, tf.cast(replica, tf.int32))
    # One draw for all. Named, since the default algorithm depends on the device.
    states = tf.random.stateless_uniform(
        (len(generators), 2), key, None, None, tf.uint32, alg="philox"
    )
    for generator, state in zip(generators, tf.unstack(states), strict=True):
        generator.assign(tf.cast(state, generator.dtype))
