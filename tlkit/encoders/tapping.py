"""Taps: a Keras model whose outputs are tensors from inside an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError
from .encoder import Encoder
from .freezing import find_encoder


def tap(encoder: Encoder | keras.Model, blocks: str | Sequence[str]) -> keras.Model:
    """A Keras model that gives the tensors behind some blocks of an encoder.

    It shares the encoder's weights, and is differentiable: multi-scale heads and
    Grad-CAM are built on it.

    Args:
        encoder: An encoder, or a model with one in it.
        blocks: Names of blocks or of parts, such as `["stage2", "stage3"]`;
            `encoder.taps` has all of them. Behind the last block, the tensor is the
            map that goes into the pooling, where there is one.

    Returns:
        A model from the encoder's inputs to a dict of tensors by name.

    Raises:
        EncoderError: A tap isn't there, or there is no encoder.

    Example:

    ```python
    encoder = tlkit.load_encoder(tlkit.samples.encoder("resnet50"))
    pyramid = tlkit.tap(encoder, ["stage1", "stage2"])
    sorted(pyramid(images))  # ["stage1", "stage2"]
    ```
    """
    found = find_encoder(encoder)
    if found is None:
        raise EncoderError(
            "There is no tlkit encoder in this model, so it has no taps. Build it "
            "around tlkit.load_encoder(source)."
        )
    names = found.checked_taps(blocks)

    specs = found.inputs_spec
    if isinstance(specs, dict):  # Keras wants the tensors to be called as the keys
        inputs = {key: _symbolic(spec, key) for key, spec in specs.items()}
    else:
        inputs = tf.nest.map_structure(_symbolic, specs)
    return keras.Model(inputs, Taps(found, names, name="taps")(inputs), name="tapped")


@keras.saving.register_keras_serializable(package="tlkit")
class Taps(keras.layers.Layer):
    """Runs an encoder as far as its taps.

    A layer beside the encoder, since Keras wants as many outputs of every call of a
    layer in a Functional model.

    Args:
        encoder: The encoder, which may stand elsewhere in the model too.
        names: Names of the taps.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str], **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.encoder, self.names = encoder, list(names)
        self.layers = [encoder]  # where `find_encoder` looks
        self.built = True

    def call(self, inputs, training=False):
        return self.encoder(inputs, training=training, taps=self.names)

    def compute_output_spec(self, inputs, training=None):
        return self.encoder.compute_output_spec(inputs, taps=self.names)

    def get_config(self) -> dict[str, Any]:
        # The object itself: Keras then sees that it stands elsewhere too.
        return super().get_config() | {"encoder": self.encoder, "names": self.names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Taps:
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def _symbolic(spec: tf.TensorSpec, name: str | None = None) -> keras.KerasTensor:
    batch, *shape = spec.shape
    return keras.Input(shape, batch_size=batch, dtype=spec.dtype.name, name=name)
