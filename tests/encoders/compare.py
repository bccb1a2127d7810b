"""Comparisons of encoders with the functions that they were made from."""

import numpy as np
import tensorflow as tf


def variables_of(encoder):
    """Returns an encoder's variables in the order of the SavedModel."""
    if encoder.opened:
        return [encoder._weights_of[i] for i in range(len(encoder._weights_of))]
    return list(encoder._variables)


def weighted(outputs):
    """Computes a scalar that depends on each number of the outputs differently."""
    total = 0.0
    for i, output in enumerate(tf.nest.flatten(outputs)):
        size = int(tf.size(output)) if tf.executing_eagerly() else 1
        weights = np.cos(np.arange(size) + i).reshape(output.shape if size > 1 else ())
        total += tf.reduce_sum(output * tf.constant(weights, output.dtype))
    return total


def gradients_of(call, variables):
    """Computes dense gradients of `weighted(call())`; `None` where there is none."""
    return with_gradients(call, variables)[1]


def with_gradients(call, variables):
    """Computes `call()` and the dense gradients of `weighted(call())`."""
    with tf.GradientTape() as tape:
        outputs = call()
        loss = weighted(outputs)
    return outputs, [
        None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for gradient in tape.gradient(loss, variables)
    ]


def error(found, expected):
    """Computes the norm of the difference, relative to the norm of `expected`."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


def assert_close(found, expected, tolerance):
    """Checks each tensor of a nest, with a tolerance relative to its norm."""
    tf.nest.assert_same_structure(found, expected)
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
    for one, other in pairs:
        assert one.dtype == other.dtype and one.shape == other.shape
        assert error(one, other) <= tolerance
