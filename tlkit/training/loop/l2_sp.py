"""L2-SP: weight decay towards the published weights instead of towards zero.

Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning with
convolutional networks", arXiv 1802.01483.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from ...encoders import find_encoder
from ..plans.schedules import Phase
from ..plans.trainable_selection import choose


def remember_published(
    model: keras.Model, phases: Sequence[Phase]
) -> dict[int, tf.Tensor]:
    """Copies of the encoder's weights that some phase pulls back to.

    Args:
        model: The model, with the weights that it had before training.
        phases: All phases of the schedule.

    Returns:
        Values by the `id` of the Keras variable. Vectors (biases, norms) are spared, as
        by weight decay.
    """
    encoder = find_encoder(model)
    if encoder is None:
        return {}
    inside = {id(variable) for variable in encoder.weights}
    return {
        id(variable): tf.identity(variable.value)
        for phase in phases
        if phase.l2_sp
        for variable in choose(model, phase).trained
        if id(variable) in inside and len(variable.shape) > 1
    }


def l2_sp_loss(
    published: Mapping[int, tf.Tensor],
    variables: Sequence[keras.Variable],
    strength: float,
) -> Callable[[], tf.Tensor] | None:
    """A function that gives `strength / 2` times the squared distance, or `None`.

    Args:
        published: What `remember_published` gave.
        variables: What the phase trains.
        strength: The phase's `l2_sp`.
    """
    pairs = [(v, published[id(v)]) for v in variables if id(v) in published]
    if not strength or not pairs:
        return None

    def loss() -> tf.Tensor:
        distances = [
            tf.reduce_sum(tf.math.squared_difference(variable.value, value))
            for variable, value in pairs
        ]
        return tf.cast(tf.add_n(distances), tf.float32) * (strength / 2)

    return loss
