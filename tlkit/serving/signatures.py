"""What a served model can be asked: its signatures, as functions over its weights.

Pictures of a request, of which some may be broken.

Only in tf.data can a graph go on after an error. What a data set costs a request is
mostly its map being made ready, which grows with the ops in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..data.images import decode_where_possible
from ..encoders import find_encoder
from ..models import ImagePreprocessor, split, task_of
from ..models import preprocessors as preprocessing
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


# === Broken pictures ===


def decode_each(
    preprocess: ImagePreprocessor, encoded: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes pictures of which some may be broken.

    TF Serving puts requests of several clients into one batch, so that an error would
    be the answer to all of them.

    Args:
        preprocess: Decodes one picture to `[height, width, 3]`.
        encoded: Strings `[batch]`.

    Returns:
        float32 `[batch, height, width, 3]`, zeros for what cannot be decoded, and bool
        `[batch]`: what could be. Of no picture one row of zeros is made, since oneDNN's
        convolutions fail on a batch of none.
    """
    size = (preprocess.height, preprocess.width)
    # What a batch needs costs a single picture a millisecond more.
    pixels, decoded = tf.cond(
        tf.equal(tf.size(encoded), 1),
        lambda: _decode_one(encoded, size),
        lambda: _decode_many(preprocess, encoded, size),
    )
    return tf.ensure_shape(pixels, (None, *size, 3)), decoded


def _decode_one(encoded: tf.Tensor, size: tuple[int, int]):
    pixels = decode_where_possible(encoded[0], size, _or_not_a_number)
    decoded = tf.math.is_finite(pixels[0, 0, 0])
    pixels = tf.cond(decoded, lambda: pixels, lambda: tf.zeros_like(pixels))
    return pixels[tf.newaxis], decoded[tf.newaxis]


def _or_not_a_number(
    function: Callable[[tf.Tensor], tf.Tensor], raw: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    row = tf.data.Dataset.from_tensors(raw).map(function).ignore_errors()
    nothing = tf.fill(tf.concat([size, [3]], axis=0), float("nan"))
    row = row.concatenate(tf.data.Dataset.from_tensors(nothing))
    return _plain(row.take(1)).get_single_element()


def _decode_many(
    preprocess: ImagePreprocessor, encoded: tf.Tensor, size: tuple[int, int]
):
    count = tf.size(encoded, out_type=tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    rows = rows.map(
        lambda index, raw: (index, preprocess(raw)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    ).ignore_errors()
    # One behind the last, since a batch of nothing cannot be taken out.
    last = tf.data.Dataset.from_tensors((count, tf.zeros((*size, 3))))
    rows = _plain(rows.concatenate(last).batch(count + 1))
    index, pixels = rows.get_single_element()
    places = index[:, tf.newaxis]
    pixels = tf.scatter_nd(places, pixels, [count + 1, *size, 3])
    decoded = tf.scatter_nd(places, tf.ones_like(index), [count + 1])[:count] > 0
    return pixels[: tf.maximum(count, 1)], decoded


def _plain(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tuning and rewriting, which would cost every request milliseconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)
