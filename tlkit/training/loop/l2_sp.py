"""Computes the L2-SP penalty: weight decay towards the pretrained weights.

Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning with
convolutional networks", arXiv 1802.01483.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from ...encoders import find_encoder
from ..plans.plan import PhasePlan


def pretrained_values(
    model: keras.Model, phases: Sequence[PhasePlan]
) -> dict[int, tf.Tensor]:
    """Copies those weights of the encoder that a phase with `l2_sp` trains.

    Returns:
        Values by the `id` of the Keras variable, without vectors (biases, norms).
    """
    encoder = find_encoder(model)
    if encoder is None:
        return {}
    inside = {id(variable) for variable in encoder.weights}
    return {
        id(variable): tf.identity(variable.value)
        for planned in phases
        if planned.phase.l2_sp
        for variable in planned.trained_weights(model)
        if id(variable) in inside and len(variable.shape) > 1
    }


def l2_sp_loss(
    pretrained: Mapping[int, tf.Tensor],
    variables: Sequence[keras.Variable],
    strength: float,
) -> Callable[[], tf.Tensor] | None:
    """Returns a function that computes the L2-SP penalty of the present weights.

    Args:
        pretrained: The result of `pretrained_values`.
        variables: The trained variables.
        strength: The phase's `l2_sp`.

    Returns:
        A function that returns `strength / 2` times the squared distance to the
        pretrained weights, as a float32 scalar; `None` if the penalty is always 0.
    """
    pairs = [(v, pretrained[id(v)]) for v in variables if id(v) in pretrained]
    if not strength or not pairs:
        return None

    def loss() -> tf.Tensor:
        distances = [
            tf.reduce_sum(tf.math.squared_difference(variable.value, value))
            for variable, value in pairs
        ]
        return tf.cast(tf.add_n(distances), tf.float32) * (strength / 2)

    return loss
