"""How encoders are compared with the functions that they were made from."""

import numpy as np
import tensorflow as tf


def variables_of(encoder):
    """An encoder's variables, in the order of the SavedModel's."""
    if encoder.opened:
        return [encoder._weights_of[i] for i in range(len(encoder._weights_of))]
    return list(encoder._own)


def weighted(outputs):
    """A scalar to which every number of the outputs matters differently."""
    total = 0.0
    for i, output in enumerate(tf.nest.flatten(outputs)):
        size = int(tf.size(output)) if tf.executing_eagerly() else 1
        weights = np.cos(np.arange(size) + i).reshape(output.shape if size > 1 else ())
        total += tf.reduce_sum(output * tf.constant(weights, output.dtype))
    return total


def gradients_of(call, variables):
    """Dense gradients of `weighted(call())` with respect to variables; None stays."""
    with tf.GradientTape() as tape:
        loss = weighted(call())
    return [
        None if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for gradient in tape.gradient(loss, variables)
    ]


def error(found, expected):
    """The norm of the difference over the norm of what is expected."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30)


def assert_close(found, expected, tolerance):
    """Each tensor of a nest within `tolerance` of the other's, relative to its norm."""
    tf.nest.assert_same_structure(found, expected)
    pairs = zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True)
    for one, other in pairs:
        assert one.dtype == other.dtype and one.shape == other.shape
        assert error(one, other) <= tolerance
