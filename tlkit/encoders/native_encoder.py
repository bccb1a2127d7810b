"""An encoder whose network is a Keras model, such as those of keras-nlp."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .encoder import Block, Encoder
from .network.block_names import name_sections


@keras.saving.register_keras_serializable(package="tlkit")
class NativeEncoder(Encoder):
    """An encoder whose network is a Keras model.

    Its blocks are groups of consecutive layers, derived from the layers' names.

    Args:
        model: The Keras model.
    """

    def __init__(self, model: keras.Model, *, batch_norm: str = "frozen", **kwargs):
        super().__init__(**kwargs)
        self.batch_norm = batch_norm
        self.model = model
        self._blocks = _blocks(model)
        self._block_of = _block_of_layers(model, self._blocks)
        self.built = True

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._blocks

    @property
    def inputs_spec(self) -> Any:
        return tf.nest.map_structure(_spec, _graph(self.model).input)

    @property
    def outputs_spec(self) -> Any:
        return tf.nest.map_structure(_spec, _graph(self.model).output)

    def _check_inputs(self, inputs: Any) -> None:
        """Does nothing: Keras checks the inputs of its models itself."""

    def call(self, inputs, training=False):
        graph = _graph(self.model)
        if not hasattr(graph, "_run_through_graph"):  # a subclassed model
            return self.model(inputs, training=bool(training) and self._trains_whole())
        # Private: a Functional model has no public way to set `training` by layer.
        # tests/encoders/test_native_encoder.py notices when it changes.
        outputs = graph._run_through_graph(
            graph._standardize_inputs(inputs),
            operation_fn=lambda layer: self._caller(layer, bool(training)),
        )
        flat = keras.tree.flatten(outputs)
        return flat[0] if len(flat) == 1 else outputs

    def _caller(self, layer: Any, training: bool) -> Callable:
        """Returns a function that calls a layer, in training mode only if trainable."""

        def call(*args, **kwargs):
            # Overwrites `training=False`, which Keras has filled in as the default.
            if getattr(layer, "_call_has_training_arg", False):
                kwargs["training"] = training and self._trains(layer)
            return layer(*args, **kwargs)

        return call

    def _trains(self, layer: keras.layers.Layer) -> bool:
        block = self._blocks[self._block_of.get(layer.name, -1)]
        return block.trainable and self._allows_training(_batch_norms(layer))

    def _trains_whole(self) -> bool:
        norms = sum(block.batch_norms for block in self._blocks)
        trainable = any(block.trainable for block in self._blocks)
        return trainable and self._allows_training(norms)

    def _allows_training(self, batch_norms: int) -> bool:
        return self.batch_norm == "train" if batch_norms else self.dropout

    def compute_output_spec(self, inputs, training=None):
        return self.model.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        model = keras.saving.serialize_keras_object(self.model)
        frozen = [i for i, v in enumerate(self.model.weights) if not v.trainable]
        return config | {"model": model, "frozen": frozen}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NativeEncoder:
        config = dict(config)
        frozen = set(config.pop("frozen", ()))
        config["model"] = keras.saving.deserialize_keras_object(config["model"])
        encoder = super().from_config(config)
        for i, variable in enumerate(encoder.model.weights):
            if i in frozen:
                variable.trainable = False
        return encoder


def _graph(model: keras.Model) -> keras.Model:
    """Returns the Functional model in a Sequential one; any other model as it is."""
    return getattr(model, "_functional", None) or model


def _spec(tensor: keras.KerasTensor) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def _blocks(model: keras.Model) -> tuple[Block, ...]:
    layers = [layer for layer in model.layers if layer.weights]
    names = name_sections([[f"{layer.name}/weight"] for layer in layers])
    blocks = []
    pairs = zip(names, layers, strict=True)
    for name, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        inside = [layer for _, layer in group]
        parts = [_block(layer.name, [layer]) for layer in inside]
        blocks.append(_block(name, inside, parts if len(parts) > 1 else ()))
    return tuple(blocks)


def _block_of_layers(model: keras.Model, blocks: tuple[Block, ...]) -> dict[str, int]:
    """Returns the index of each layer's block, by layer name.

    A layer without weights belongs to the block of the layer before it.
    """
    of_variable = {id(v): i for i, block in enumerate(blocks) for v in block.variables}
    block_of, last = {}, 0
    for layer in model.layers:
        if layer.weights:
            last = of_variable[id(layer.weights[0])]
        block_of[layer.name] = last
    return block_of


def _block(name: str, layers: list[keras.layers.Layer], parts=()) -> Block:
    return Block(
        name=name,
        variables=tuple(v for layer in layers for v in layer.weights),
        learnable=tuple(v for layer in layers for v in layer.trainable_weights),
        batch_norms=sum(_batch_norms(layer) for layer in layers),
        parts=tuple(parts),
    )


def _batch_norms(layer: keras.layers.Layer) -> int:
    inner = layer._flatten_layers() if hasattr(layer, "_flatten_layers") else [layer]
    return sum(isinstance(x, keras.layers.BatchNormalization) for x in inner)
