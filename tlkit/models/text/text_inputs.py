"""The layer that stores how a model's raw texts become its inputs.

Tested in tests/models/test_two_models_over_one_encoder.py.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import keras
import tensorflow as tf

from ...encoders import trust_source, trusts_keras_file
from .packer import Packing


@keras.saving.register_keras_serializable(package="tlkit")
class TextInputs(keras.layers.Layer):
    """Passes token ids on unchanged and stores how raw texts become token ids.

    A layer stores this, since Keras saves and clones no other attributes of a model.

    Args:
        packing: How texts are packed into rows of tokens, a `Packing` or its config.
        preprocessor: Source of a SavedModel that turns strings into token ids; `None`
            for the encoder's vocabulary or preprocessor.
    """

    def __init__(
        self,
        packing: Packing | dict[str, Any],
        preprocessor: str | os.PathLike | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.packing = Packing(**packing) if isinstance(packing, dict) else packing
        self.preprocessor = preprocessor and os.fspath(preprocessor)
        self.built = True

    def call(self, inputs):
        return inputs

    def compute_output_spec(self, inputs):
        return tf.nest.map_structure(
            lambda tensor: keras.KerasTensor(tensor.shape, tensor.dtype), inputs
        )

    def get_config(self) -> dict[str, Any]:
        packing = dataclasses.asdict(self.packing)
        config = {"packing": packing, "preprocessor": self.preprocessor}
        return super().get_config() | config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TextInputs:
        if config.get("preprocessor") and trusts_keras_file():
            trust_source(config["preprocessor"])
        return cls(**config)
