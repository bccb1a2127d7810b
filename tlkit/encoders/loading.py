"""Loads an encoder from whatever a source names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError, import_extra
from ..sources import Card, resolve
from .encoder import Encoder
from .flat_graph import CannotOpen, FlatGraph
from .flattening import flatten
from .native import NativeEncoder
from .network import Network
from .opened import opened_encoder
from .reading import Restored, read_module, read_saved_model
from .restored import RestoredEncoder
from .shapes import untie_shapes
from .specs import Variable
from .vocabulary import read_vocabulary


def load_encoder(
    source: str | os.PathLike | keras.Model | tf.Module,
    *,
    output: str | Sequence[str] | None = None,
    endpoints: tuple[str, str | None] | None = None,
    dtype: str | None = None,
    open_graph: bool = True,
    name: str = "encoder",
    verbose: int = 1,
) -> Encoder:
    """Loads a published encoder as a Keras layer with blocks.

    Args:
        source: What to load: a folder with a SavedModel, a name on the shelf
            `saved_models/` or in the catalog (`"resnet_v2_50"`), a TF Hub or Kaggle
            address, `kaggle://…`, `gs://…`, `preset://…`, a Keras model, or a
            `tf.Module` whose `__call__` was traced (its variables are copied).
        output: Which output, for an encoder that has several, such as
            `"sequence_output"`; several names give a dict. All of them if `None`.
        endpoints: For a SavedModel that cannot be called itself: names of its
            functions for inference and for training, or `None` for the second. Those
            that Keras 3 writes are found (`call_inference` and `call_training`,
            `inference` and `training`, `serve`).
        dtype: Dtype of the computation. `None` takes Keras's global policy, and a
            mixed one is refused for a SavedModel.
        open_graph: Whether to open the SavedModel's graph. If `False`, the restored
            function is called as a whole, and there is only one block.
        name: Name of the layer.
        verbose: 0 for silence, 1 for a progress bar while downloading.

    Returns:
        The encoder, frozen nowhere: use `tlkit.freeze` or a schedule.

    Raises:
        SourceError: The source was not found, could not be fetched or is broken.
        EncoderError: It cannot be used as an encoder.

    Example:

    ```python
    encoder = tlkit.load_encoder(tlkit.samples.encoder("resnet50"))
    print(encoder.summary())
    features = encoder(images)  # float32 [batch, 1024]
    ```
    """
    if isinstance(source, keras.Model):
        return NativeEncoder(source, name=name, details={"name": source.name})
    if isinstance(source, tf.Module):
        restored = read_module(source, endpoints=endpoints)
        details = _details(source.name, None, restored)
    else:
        resolved = resolve(source, verbose=verbose)
        if resolved.preset is not None:
            return _preset_encoder(resolved, name)
        restored = read_saved_model(resolved.path, endpoints=endpoints)
        details = _details(resolved.name, resolved.card, restored)
    policy = dtype or keras.config.dtype_policy().name
    kwargs = {"name": name, "details": details, "dtype": policy}
    restored = _select(restored, output)
    if not open_graph:
        return RestoredEncoder(
            restored, "it was loaded with open_graph=False", **kwargs
        )
    try:
        return _opened(restored, kwargs)
    except CannotOpen as error:
        return RestoredEncoder(restored, str(error), **kwargs)


def _opened(restored: Restored, kwargs: dict[str, Any]) -> Encoder:
    variables = {
        id(variable.handle): (i, tf.TensorSpec(variable.shape, variable.dtype))
        for i, variable in enumerate(restored.variables)
    }
    resources: list = []
    graphs: dict[bool, FlatGraph] = {}
    for training, endpoint in restored.endpoints.items():
        constants = endpoint.constants
        if endpoint.keyword and constants:
            raise CannotOpen("its inputs go by name, with other tensors beside them")
        graph = flatten(endpoint.function, variables, resources, constants)
        wanted = [graph.outputs[i] for i in restored.selected]
        graphs[training] = untie_shapes(
            dataclasses.replace(graph, outputs=tuple(wanted))
        )
    losses = [flatten(loss, variables, resources) for loss in restored.losses]
    vectors = {i for i, v in enumerate(restored.variables) if v.shape.rank <= 1}
    network = Network(graphs, frozenset(vectors), resources, restored.module, losses)
    specs = [_variable(i, v, restored) for i, v in enumerate(restored.variables)]
    return opened_encoder(
        network,
        specs,
        restored.variables,
        inputs=restored.inputs,
        outputs=restored.outputs,
        **kwargs,
    )


def _variable(position: int, variable: tf.Variable, restored: Restored) -> Variable:
    return Variable(
        name=variable.name.split(":")[0],
        shape=tuple(variable.shape),
        dtype=variable.dtype.name,
        learnable=position in restored.learnable,
    )


def _select(restored: Restored, output: str | Sequence[str] | None) -> Restored:
    """Keeps one output, or some, of those that the module gives."""
    if output is None:
        return restored
    outputs = restored.outputs
    names = [output] if isinstance(output, str) else list(output)
    missing = [n for n in names if not isinstance(outputs, dict) or n not in outputs]
    if missing:
        there = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else "one only"
        raise EncoderError(
            f"The encoder has no output {missing[0]!r}. Its outputs: {there}. "
            "Leave `output` out to get all of them."
        )
    numbered = iter(range(len(tf.nest.flatten(outputs))))
    positions = tf.nest.map_structure(lambda _: next(numbered), outputs)
    one = isinstance(output, str)
    chosen = positions[output] if one else {name: positions[name] for name in names}
    return dataclasses.replace(
        restored,
        outputs=outputs[output] if one else {name: outputs[name] for name in names},
        output=output,
        selected=tuple(tf.nest.flatten(chosen)),
    )


def _details(name: str, card: Card | None, restored: Restored) -> dict[str, Any]:
    """What is known of the encoder, from its card or by looking at it."""
    details: dict[str, Any] = {"name": name}
    if card is not None:
        fields = ("kind", "image_size", "pixels", "preprocessor", "licence", "tried")
        details |= {field: getattr(card, field) for field in fields}
    if details.get("kind") is None:
        details["kind"] = _kind(restored.inputs)
    details["takes_training"] = restored.takes_training
    return details | read_vocabulary(restored.module)


def _kind(inputs: Any) -> str | None:
    flat = tf.nest.flatten(inputs)
    if isinstance(inputs, dict) and all(spec.dtype.is_integer for spec in flat):
        return "text"
    if len(flat) == 1 and flat[0].dtype == tf.string:
        return "text"
    if len(flat) == 1 and flat[0].shape.rank == 4:
        return "image"
    return None


def _preset_encoder(resolved, name: str) -> Encoder:
    keras_nlp = import_extra("keras_nlp", "presets", "preset:// sources")
    backbone = keras_nlp.models.Backbone.from_preset(str(resolved.preset))
    card = resolved.card
    details = {"name": resolved.name, "preset": str(resolved.preset)}
    if card is not None:
        details |= {"kind": card.kind, "pixels": card.pixels}
    return NativeEncoder(backbone, name=name, details=details)
