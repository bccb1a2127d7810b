"""Divides a model that `tlkit` built into a prefix and a remainder, at a cut.

As long as nothing in the prefix is trained, its output depends only on the inputs, so
it can be computed once and cached. A cut is `FEATURES`, directly before the head, or an
integer `n` from 1 on, directly before section `n` of the encoder.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..encoders import Encoder, all_inputs, can_divide, cut_state, needed_inputs
from ..encoders.inference import FrozenForward
from ..errors import EncoderError
from ..tasks import Classification
from .heads import Head
from .text.windows import Windows

# The cut directly before the head.
FEATURES = -1


def head_of(model: keras.Model) -> Head | None:
    """Returns the head of a model that `tlkit` built; `None` for others."""
    layers = getattr(model, "layers", ())
    heads = [layer for layer in layers if isinstance(layer, Head)]
    return heads[0] if len(heads) == 1 else None


def task_of(model: keras.Model) -> Classification | None:
    """Returns the task of a model that `tlkit` built; `None` for others."""
    head = head_of(model)
    return head.task if head is not None else None


def split(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Divides a model at its features, before the head.

    Returns:
        Two models that share the layers of `model`: one from inputs to features
        `[batch, d]`, one from features to outputs. `None` if `tlkit` did not build it.
    """
    head = head_of(model)
    if head is None:
        return None
    features = head.input
    trunk = keras.Model(model.input, features, name="trunk")
    again = keras.Input(features.shape[1:], dtype=features.dtype, name="features")
    return trunk, keras.Model(again, head(again), name="top")


def encoder_to_cut(model: keras.Model) -> Encoder | None:
    """Returns the encoder of a model that `tlkit` built; `None` if it has no cuts."""
    # With windows, the encoder has several rows per example, but a cache has one.
    if head_of(model) is None or any(isinstance(x, Windows) for x in model.layers):
        return None
    encoders = [layer for layer in model.layers if isinstance(layer, Encoder)]
    return encoders[0] if len(encoders) == 1 and can_divide(encoders[0]) else None


def can_cut(model: keras.Model, cut: int) -> bool:
    """Returns whether a model can be divided at a cut."""
    if cut == FEATURES:
        return head_of(model) is not None
    encoder = encoder_to_cut(model)
    try:
        return encoder is not None and _needed(encoder, cut) is not None
    except EncoderError:
        return False


def prefix_function(
    model: keras.Model, cuts: Sequence[int]
) -> Callable[[Any], tuple[Any, ...]]:
    """Returns a function that computes the tensors at cuts from a model's inputs.

    The function runs in inference mode. If `FEATURES` is the only cut, it runs a faster
    graph on a copy of the present weights. With a cut inside the encoder, it runs the
    same ops as training: a faster graph would change the last digits, and Adam, which
    divides by values near zero, would arrive at other weights after some hundred steps.

    Args:
        model: A model that can be divided at these cuts (`can_cut`).
        cuts: `FEATURES` or indices of sections.

    Returns:
        A function that returns a tuple: the features, or a `cut_state`, for each cut.
    """
    encoder = encoder_to_cut(model)
    if encoder is None:
        trunk, _ = split(model)
        return lambda inputs: tuple(trunk(inputs, training=False) for _ in cuts)
    inside = sorted(set(cuts) - {FEATURES})
    before = keras.Model(model.input, tf.nest.flatten(encoder.input))
    pool = _after(model, encoder, head_of(model).input)
    forward = None if inside else FrozenForward(encoder)

    def prefix(inputs):
        flat = tf.nest.flatten(before(inputs, training=False))
        packed = tf.nest.pack_sequence_as(encoder.inputs_spec, flat)
        if forward is not None:
            outputs = tf.nest.flatten(forward(packed).outputs)
            return (pool([*outputs, *_shared_inputs(encoder, flat)]),)
        tensors = encoder.run_to(packed, inside)
        states = {
            cut: cut_state(tensors[cut], flat, _needed(encoder, cut)) for cut in inside
        }
        if FEATURES in cuts:
            outputs = tf.nest.flatten(encoder(states[inside[-1]], start=inside[-1]))
            states[FEATURES] = pool([*outputs, *_shared_inputs(encoder, flat)])
        return tuple(states[cut] for cut in cuts)

    return prefix


def prefix_weights(model: keras.Model, cut: int) -> list[keras.Variable]:
    """Returns the weights of the prefix before a cut."""
    if cut == FEATURES:
        return split(model)[0].weights
    return [v for section in encoder_to_cut(model).sections[:cut] for v in section]


def remainder_of(model: keras.Model, cut: int) -> keras.Model:
    """Returns the remainder after a cut, which shares the layers of the whole model."""
    if cut == FEATURES:
        return split(model)[1]
    return Remainder(model, encoder_to_cut(model), cut)


class Remainder(keras.Model):
    """The remainder of a model after a cut inside its encoder; takes a `cut_state`.

    Args:
        model: The whole model.
        encoder: Its encoder.
        section: The section of the encoder that begins at the cut.
    """

    def __init__(self, model: keras.Model, encoder: Encoder, section: int):
        super().__init__(name="remainder")
        self.encoder, self.section = encoder, section
        self.after = _after(model, encoder, model.output)
        self.pool = _after(model, encoder, head_of(model).input)

    def call(self, state, training=False):
        return self.after(self._outputs(state, training), training=training)

    def features(self, state) -> tf.Tensor:
        """Computes the input of the head, in inference."""
        return self.pool(self._outputs(state, False), training=False)

    def _outputs(self, state, training) -> list[tf.Tensor]:
        outputs = self.encoder(state, training=training, start=self.section)
        flat = all_inputs(self.encoder, state["inputs"])
        return [*tf.nest.flatten(outputs), *_shared_inputs(self.encoder, flat)]


def _after(model: keras.Model, encoder: Encoder, end: Any) -> Callable:
    """Returns the layers between an encoder and the tensor `end`, as a model.

    The model's inputs are the encoder's flat outputs, then the `_shared_inputs`.
    """
    outputs = tf.nest.flatten(encoder.output)
    for i, output in enumerate(outputs):
        if output is end:  # Keras has no model without layers
            return lambda flat, training=False, i=i: flat[i]
    shared = _shared_inputs(encoder, tf.nest.flatten(encoder.input))
    # Restored below, in a private attribute. If a model has inner tensors among its
    # inputs, Keras replaces the history of the tensors of input layers, and the whole
    # model can no longer be saved. tests/models/test_model_prefix.py fails when that
    # changes.
    histories = [tensor._keras_history for tensor in shared]
    after = keras.Model([*outputs, *shared], end)
    for tensor, history in zip(shared, histories, strict=True):
        tensor._keras_history = history
    return after


def _shared_inputs(encoder: Encoder, inputs: Sequence) -> list:
    """Returns the inputs that layers after the encoder may use: pooling uses a mask."""
    return list(inputs) if isinstance(encoder.inputs_spec, dict) else []


def _needed(encoder: Encoder, section: int) -> tuple[int, ...]:
    """Returns the positions of the inputs that are needed after a cut."""
    needed = needed_inputs(encoder, section)
    specs = tf.nest.flatten(encoder.inputs_spec)
    return tuple(range(len(specs))) if _shared_inputs(encoder, specs) else needed
