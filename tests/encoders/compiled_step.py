"""A training step for XLA, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def make_step(
    model: Callable[..., Any],
    variables: list[keras.Variable],
    examples: Any,
    *,
    jit_compile: bool,
    learning_rate: float = 1e-3,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes a step of AdamW on the cross-entropy of a model's logits.

    Args:
        model: A model that returns logits and has `losses`.
        variables: The variables to train.
        examples: A batch of inputs; all batches have its shapes.
        jit_compile: Whether XLA compiles the step.
        learning_rate: AdamW's learning rate.

    Returns:
        A function of inputs and int32 labels `[batch]`, which returns the loss and the
        dense gradient of each variable.
    """
    optimizer = keras.optimizers.AdamW(learning_rate)
    optimizer.build(variables)
    values = [variable.value for variable in variables]
    inputs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), examples)
    batch = tf.nest.flatten(inputs)[0].shape[0]
    signature = [inputs, tf.TensorSpec([batch], tf.int32)]

    @tf.function(jit_compile=jit_compile, input_signature=signature, autograph=False)
    def step(x, y):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value in values:
                tape.watch(value)
            logits = model(x, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            extra = [tf.cast(loss, losses.dtype) for loss in model.losses]
            loss = tf.add_n([tf.reduce_sum(losses), *extra])
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.apply(dense, variables)
        return loss, dense

    return step
