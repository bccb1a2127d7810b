"""`tap`: a Keras model whose outputs are the outputs of blocks inside an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError
from .encoder import Encoder
from .freezing import find_encoder


def tap(encoder: Encoder | keras.Model, blocks: str | Sequence[str]) -> keras.Model:
    """Builds a Keras model whose outputs are the outputs of blocks in an encoder.

    It shares the encoder's weights and is differentiable, for example for multi-scale
    heads and Grad-CAM.

    Args:
        encoder: An encoder, or a model with one in it.
        blocks: Names of blocks or parts from `encoder.taps`, such as
            `["stage2", "stage3"]`. If an image encoder ends with pooling, the tap of
            the last block is the feature map before the pooling.

    Returns:
        A model that maps the encoder's inputs to a dict of tensors by tap name.

    Raises:
        EncoderError: A name is not a tap, or the model contains no encoder.

    Example:

    ```python
    encoder = tlkit.load_encoder(tlkit.samples.encoder("resnet50"))
    pyramid = tlkit.tap(encoder, ["stage1", "stage2"])
    sorted(pyramid(images))  # ["stage1", "stage2"]
    ```
    """
    layer = find_encoder(encoder)
    if layer is None:
        raise EncoderError(
            "There is no tlkit encoder in this model, so it has no taps. Build it "
            "around tlkit.load_encoder(source)."
        )
    names = layer.checked_taps(blocks)
    specs = layer.inputs_spec
    if isinstance(specs, dict):  # Keras requires each input to be named like its key
        inputs = {key: _symbolic(spec, key) for key, spec in specs.items()}
    else:
        inputs = tf.nest.map_structure(_symbolic, specs)
    return keras.Model(inputs, Taps(layer, names, name="taps")(inputs), name="tapped")


@keras.saving.register_keras_serializable(package="tlkit")
class Taps(keras.layers.Layer):
    """Runs an encoder up to the last requested tap; returns the tensors by tap name.

    In a Functional model, all calls of a layer must return the same number of outputs.
    So this layer, which wraps the encoder, returns the taps.

    Args:
        encoder: The encoder, which the model may also call directly.
        names: Names of the taps.
    """

    def __init__(self, encoder: Encoder, names: Sequence[str], **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.encoder, self.names = encoder, list(names)
        self.layers = [encoder]  # for `find_encoder`
        self.built = True

    def call(self, inputs, training=False):
        return self.encoder(inputs, training=training, taps=self.names)

    def compute_output_spec(self, inputs, training=None):
        return self.encoder.compute_output_spec(inputs, taps=self.names)

    def get_config(self) -> dict[str, Any]:
        # The object, not its config, so that Keras saves an encoder that the model uses
        # twice only once.
        return super().get_config() | {"encoder": self.encoder, "names": self.names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Taps:
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        return cls(encoder, **config)


def _symbolic(spec: tf.TensorSpec, name: str | None = None) -> keras.KerasTensor:
    batch, *shape = spec.shape
    return keras.Input(shape, batch_size=batch, dtype=spec.dtype.name, name=name)
