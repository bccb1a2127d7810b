"""The options of a model, read from the layers that store them.

Tested in tests/models/test_two_models_over_one_encoder.py.
"""

import dataclasses

import keras

from ..encoders import Encoder, EncoderFacts, find_encoder, nested_layers
from .heads import Pixels
from .text.packer import Packing
from .text.text_inputs import TextInputs


def facts_of(model: keras.Model | Encoder) -> EncoderFacts:
    """Returns the facts of a model's encoder, as this model uses them.

    Args:
        model: A model with one encoder, or an encoder.

    Returns:
        The encoder's facts, but with the pixel range and the preprocessor of the model.
        If the source does not state a kind, it is inferred from the model's layers.
    """
    facts = find_encoder(model).facts
    pixels, texts = _layer(model, Pixels), _layer(model, TextInputs)
    if pixels is not None:
        facts = dataclasses.replace(
            facts, kind=facts.kind or "image", pixels=pixels.pixels
        )
    if texts is not None:
        facts = dataclasses.replace(facts, kind=facts.kind or "text")
        if texts.preprocessor:
            facts = dataclasses.replace(
                facts, preprocessor=texts.preprocessor, vocabulary=()
            )
    return facts


def packing_of(model: keras.Model | Encoder) -> Packing:
    """Returns how a model packs texts into rows of tokens; the default if not stored.

    Args:
        model: A model with one encoder, or an encoder.
    """
    texts = _layer(model, TextInputs)
    if texts is not None:
        return texts.packing
    encoder = find_encoder(model)
    return Packing(**(encoder.old_packing if encoder is not None else {}))


def _layer(model: keras.Model | Encoder, kind: type) -> keras.layers.Layer | None:
    layers = [layer for layer in nested_layers(model) if isinstance(layer, kind)]
    return layers[0] if len(layers) == 1 else None
