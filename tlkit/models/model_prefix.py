"""Takes models apart that `tlkit` built.

A model in two halves: frozen blocks from its beginning on, and the rest.

Where nothing in the lower half is trained, it is a pure function of the inputs, and
what it gives can be computed once and kept.
"""

from __future__ import annotations

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


# === Halving ===

# The cut behind everything but the head.
FEATURES = -1


def encoder_to_cut(model: keras.Model) -> Encoder | None:
    """The encoder of a model that `tlkit` built, if there are cuts in it."""
    # With windows the encoder has more rows than there are examples.
    if head_of(model) is None or any(isinstance(x, Windows) for x in model.layers):
        return None
    found = [layer for layer in model.layers if isinstance(layer, Encoder)]
    return found[0] if len(found) == 1 and can_divide(found[0]) else None


def can_cut(model: keras.Model, cut: int) -> bool:
    """Whether a model can be divided at a cut.

    Args:
        model: Any model.
        cut: `FEATURES`, or the index of the encoder's section that begins there, from
            1 on.
    """
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
    """A function from a model's inputs to what comes at each cut, as in inference.

    For features alone it runs at its best speed, for which it holds the weights as they
    are now. With a cut inside the encoder it makes the very operations that training
    makes: folding weights changes the last digits, and Adam, which divides by what may
    be next to nothing, makes other weights of that within some hundred steps.

    Args:
        model: A model for which `can_cut` says yes.
        cuts: `FEATURES` or indices of sections.
    """
    encoder = encoder_to_cut(model)
    if encoder is None:
        trunk, _ = split(model)
        return lambda inputs: tuple(trunk(inputs, training=False) for _ in cuts)
    inside = sorted(set(cuts) - {FEATURES})
    before = keras.Model(model.input, tf.nest.flatten(encoder.input))
    pool = _behind(model, encoder, head_of(model).input)
    folded = None if inside else FrozenForward(encoder)

    def lower(inputs):
        flat = tf.nest.flatten(before(inputs, training=False))
        packed = tf.nest.pack_sequence_as(encoder.inputs_spec, flat)
        if folded is not None:
            return (
                pool(
                    [*tf.nest.flatten(folded(packed).outputs), *_taken(encoder, flat)]
                ),
            )
        found = encoder.run_to(packed, inside)
        states = {
            cut: cut_state(found[cut], flat, _needed(encoder, cut)) for cut in inside
        }
        if FEATURES in cuts:
            outputs = encoder(states[inside[-1]], start=inside[-1])
            states[FEATURES] = pool([*tf.nest.flatten(outputs), *_taken(encoder, flat)])
        return tuple(states[cut] for cut in cuts)

    return lower


def prefix_weights(model: keras.Model, cut: int) -> list[keras.Variable]:
    """The weights of all that lies below a cut."""
    if cut == FEATURES:
        return split(model)[0].weights
    return [v for section in encoder_to_cut(model).sections[:cut] for v in section]


def remainder_of(model: keras.Model, cut: int) -> keras.Model:
    """The model from a cut on, with the layers of the whole one."""
    if cut == FEATURES:
        return split(model)[1]
    return Remainder(model, encoder_to_cut(model), cut)


class Remainder(keras.Model):
    """A model from a cut inside its encoder on.

    Args:
        model: The whole model.
        encoder: Its encoder.
        section: The section of the encoder that begins at the cut.
    """

    def __init__(self, model: keras.Model, encoder: Encoder, section: int):
        super().__init__(name="upper")
        self.encoder, self.section = encoder, section
        self.behind = _behind(model, encoder, model.output)
        self.pool = _behind(model, encoder, head_of(model).input)

    def call(self, state, training=False):
        return self.behind(self._outputs(state, training), training=training)

    def features(self, state) -> tf.Tensor:
        """What the head gets, as in inference."""
        return self.pool(self._outputs(state, False), training=False)

    def _outputs(self, state, training) -> list[tf.Tensor]:
        outputs = self.encoder(state, training=training, start=self.section)
        flat = all_inputs(self.encoder, state["inputs"])
        return [*tf.nest.flatten(outputs), *_taken(self.encoder, flat)]


def _behind(model: keras.Model, encoder: Encoder, end: Any) -> Callable:
    """What comes behind an encoder, up to an end, of the encoder's flat outputs."""
    outputs = tf.nest.flatten(encoder.output)
    for i, output in enumerate(outputs):
        if output is end:  # Keras has no model of no layer
            return lambda flat, training=False, i=i: flat[i]
    # Pooling takes the mask from the model's inputs, which are the encoder's.
    taken = _taken(encoder, tf.nest.flatten(encoder.input))
    # Private: Keras gives an input that stands beside tensors from within a second node
    # of its graph, and the model that it belongs to could not be saved any more.
    # tests/models/test_model_prefix.py notices when that changes.
    histories = [tensor._keras_history for tensor in taken]
    behind = keras.Model([*outputs, *taken], end)
    for tensor, history in zip(taken, histories, strict=True):
        tensor._keras_history = history
    return behind


def _taken(encoder: Encoder, inputs: Sequence) -> list:
    """The encoder's inputs that layers behind it may take, too: tokens, no pictures."""
    return list(inputs) if isinstance(encoder.inputs_spec, dict) else []


def _needed(encoder: Encoder, section: int) -> tuple[int, ...]:
    """Positions of the inputs that are to be kept beside the tensor at a cut."""
    needed = needed_inputs(encoder, section)
    specs = tf.nest.flatten(encoder.inputs_spec)
    return tuple(range(len(specs))) if _taken(encoder, specs) else needed
