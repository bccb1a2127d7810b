"""What a served model can be asked: its signatures, as functions over its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..encoders import find_encoder
from ..models import preprocessors as preprocessing
from ..models import split, task_of
from .broken_pictures import decode_each
from .export_examples import kind_of

RAW, TENSORS, EMBED = "serving_default", "tensors", "embed"

Answer = dict[str, tf.Tensor]


def served_module(model: keras.Model, top: int) -> tuple[tf.Module, dict[str, Any]]:
    """What is written of a model, and the functions that become its signatures.

    Args:
        model: A model that `tlkit` built.
        top: How many labels `top_labels` gives.

    Returns:
        A module that owns the variables, tables and assets, and the functions by the
        names of the signatures.
    """
    encoder, preprocess = find_encoder(model), preprocessing(model)
    task, forward = task_of(model), _forward(model)

    def answer(inputs: Any) -> Answer:
        return task.answer(forward(inputs)[1], top)

    def embed(inputs: Any) -> Answer:
        return {"embedding": tf.cast(forward(inputs)[0], tf.float32)}

    kind = kind_of(model)
    functions = {TENSORS: _of_tensors(model, answer)}
    if kind == "numbers":
        functions = {RAW: functions[TENSORS], EMBED: _of_tensors(model, embed)}
    else:
        make = _of_pictures if kind == "image" else _of_texts
        functions[RAW] = make(answer, preprocess, kind)
        functions[EMBED] = make(embed, preprocess, kind)
    served = tf.Module(name="served")
    # Each variable once: Keras's own objects would bring every weight a second time.
    served.weights = [variable.value for variable in model.variables]
    served.owned = _owned(encoder, preprocess)
    return served, functions


def _forward(model: keras.Model):
    """Features and outputs of a model, as one function that all signatures call."""
    # Else each signature would have a copy of the graph, a twentieth of a ResNet's
    # weights. TensorFlow leaves out what a signature does not use.
    trunk, top = split(model)
    specs = tensor_specs(model)
    spec = specs if isinstance(model.input, dict) else next(iter(specs.values()))

    def forward(inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        features = trunk(inputs, training=False)
        return features, top(features, training=False)

    return tf.function(forward, input_signature=[spec], autograph=False)


def _of_texts(run: Callable[[Any], Answer], preprocess, kind: str):
    prepare = getattr(preprocess, "to_longest", preprocess.batch)
    if kind == "pair":
        names = ["text", "text_pair"]
        raw = lambda text, text_pair: run(prepare(tf.stack([text, text_pair], axis=1)))
    else:
        names, raw = ["text"], lambda text: run(prepare(text))
    specs = [tf.TensorSpec((None,), tf.string, name=name) for name in names]
    return tf.function(raw, input_signature=specs, autograph=False)


def _of_pictures(run: Callable[[Any], Answer], preprocess, kind: str):
    def raw(image_bytes: tf.Tensor) -> Answer:
        pixels, decoded = decode_each(preprocess, image_bytes)
        count = tf.size(decoded)
        return {name: _blank(x[:count], decoded) for name, x in run(pixels).items()}

    spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
    return tf.function(raw, input_signature=[spec], autograph=False)


def _blank(answer: tf.Tensor, decoded: tf.Tensor) -> tf.Tensor:
    """The answer, with nothing in the rows that could not be decoded."""
    nothing = "" if answer.dtype == tf.string else 0
    kept = tf.reshape(decoded, [-1] + [1] * (answer.shape.rank - 1))
    return tf.where(kept, answer, tf.constant(nothing, answer.dtype))


def _of_tensors(model: keras.Model, run: Callable[[Any], Answer]):
    """A signature that takes a model's inputs by name."""
    inputs = model.input
    specs = tensor_specs(model)

    def tensors(**given: tf.Tensor) -> Answer:
        packed = given if isinstance(inputs, dict) else next(iter(given.values()))
        return run(packed)

    return tf.function(tensors, autograph=False).get_concrete_function(**specs)


def tensor_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """What the signature of tensors takes, by name."""
    inputs = model.input
    if not isinstance(inputs, dict):
        name = "pixels" if kind_of(model) == "image" else "inputs"
        inputs = {name: inputs}
    return {
        name: tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=name)
        for name, x in inputs.items()
    }


def _owned(encoder, preprocess) -> list[Any]:
    """SavedModels whose tables and assets the signatures need."""
    network = getattr(encoder, "network", None)
    owners = [
        getattr(encoder, "module", None),
        getattr(network, "owner", None),
        getattr(preprocess, "module", None),
    ]
    return [owner for owner in owners if owner is not None]
