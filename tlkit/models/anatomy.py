"""Takes models apart that `tlkit` built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..encoders import Encoder
from ..encoders.halves import all_inputs, can_halve, cut_state, needed_inputs
from ..errors import EncoderError
from .layers import Head
from .tasks import Classification


def head_of(model: keras.Model) -> Head | None:
    """The head of a model that `tlkit` built; `None` for others."""
    layers = getattr(model, "layers", ())
    heads = [layer for layer in layers if isinstance(layer, Head)]
    return heads[0] if len(heads) == 1 else None


def task_of(model: keras.Model) -> Classification | None:
    """The task of a model that `tlkit` built; `None` for others."""
    head = head_of(model)
    return head.task if head is not None else None


def split(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """The model up to its features, and from its features on.

    Args:
        model: A model that `tlkit` built.

    Returns:
        Two models that share the layers of `model`: inputs to features `[batch, d]`,
        and features to outputs. `None` for other models.
    """
    head = head_of(model)
    if head is None:
        return None
    features = head.input
    trunk = keras.Model(model.input, features, name="trunk")
    again = keras.Input(features.shape[1:], dtype=features.dtype, name="features")
    return trunk, keras.Model(again, head(again), name="top")


def halve(
    model: keras.Model, segments: Sequence[int]
) -> tuple[Callable[[Any], tuple[dict, ...]], tuple[keras.Model, ...]] | None:
    """Divides a model at cuts inside its encoder.

    Args:
        model: A model that `tlkit` built.
        segments: The encoder's segments that begin at the cuts, ascending, from 1 on.

    Returns:
        A function from the model's inputs to what comes at each cut, as in inference,
        and for each cut the model that goes on from there; they share the layers of
        `model`. `None` where the model cannot be divided.
    """
    encoder = halvable_encoder(model)
    if encoder is None:
        return None
    try:
        needed = [_needed(encoder, segment) for segment in segments]
    except EncoderError:
        return None
    before = keras.Model(model.input, tf.nest.flatten(encoder.input))

    def lower(inputs):
        flat = tf.nest.flatten(before(inputs, training=False))
        packed = tf.nest.pack_sequence_as(encoder.inputs_spec, flat)
        cuts = encoder.run_to(packed, segments)
        pairs = zip(segments, needed, strict=True)
        return tuple(cut_state(cuts[s], flat, places) for s, places in pairs)

    return lower, tuple(Upper(model, encoder, segment) for segment in segments)


def halvable_encoder(model: keras.Model) -> Encoder | None:
    """The encoder of a model that `tlkit` built, if there are cuts in it."""
    if head_of(model) is None:
        return None
    found = [layer for layer in model.layers if isinstance(layer, Encoder)]
    return found[0] if len(found) == 1 and can_halve(found[0]) else None


class Upper(keras.Model):
    """A model from a cut inside its encoder on.

    Args:
        model: The whole model.
        encoder: Its encoder.
        segment: The segment of the encoder that begins at the cut.
    """

    def __init__(self, model: keras.Model, encoder: Encoder, segment: int):
        super().__init__(name="upper")
        self.encoder, self.segment = encoder, segment
        outputs = tf.nest.flatten(encoder.output)
        # Pooling takes the mask from the model's inputs, which are the encoder's.
        taken = tf.nest.flatten(encoder.input) if _keeps_inputs(encoder) else []
        self.behind = keras.Model([*outputs, *taken], model.output)

    def call(self, state, training=False):
        outputs = self.encoder(state, training=training, start=self.segment)
        taken = []
        if _keeps_inputs(self.encoder):
            taken = all_inputs(self.encoder, state["inputs"])
        flat = [*tf.nest.flatten(outputs), *taken]
        return self.behind(flat, training=training)


def _needed(encoder: Encoder, segment: int) -> tuple[int, ...]:
    needed = needed_inputs(encoder, segment)
    if _keeps_inputs(encoder):
        return tuple(range(len(tf.nest.flatten(encoder.inputs_spec))))
    return needed


def _keeps_inputs(encoder: Encoder) -> bool:
    """Whether the inputs are token ids and the like, which weigh nothing."""
    return isinstance(encoder.inputs_spec, dict)
