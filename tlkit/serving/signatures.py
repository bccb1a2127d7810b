"""The signatures of an export, as functions over the model's weights.

`decode_each` lets one image of a request fail without failing the others. Only tf.data
lets a graph continue after an error. Most of the time per request is spent on building
the function of `Dataset.map`, which takes longer the more ops it has.

Tested in tests/serving/test_exporting.py.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..data.images import decode_where_possible
from ..encoders import find_encoder
from ..models import ImagePreprocessor, preprocessing, split, task_of
from .export_examples import example_kind

RAW, TENSORS, EMBED = "serving_default", "tensors", "embed"

Response = dict[str, tf.Tensor]


def served_module(model: keras.Model, top: int) -> tuple[tf.Module, dict[str, Any]]:
    """Returns the `tf.Module` to save for a model, and its signatures' functions.

    Args:
        model: A model that `tlkit` built.
        top: The number of labels in `top_labels`.

    Returns:
        A module that owns the variables, tables and assets, and the functions by the
        names of the signatures.
    """
    encoder, preprocess = find_encoder(model), preprocessing(model)
    task, forward = task_of(model), _forward(model)

    def predict(inputs: Any) -> Response:
        return task.answer(forward(inputs)[1], top)

    def embed(inputs: Any) -> Response:
        return {"embedding": tf.cast(forward(inputs)[0], tf.float32)}

    kind = example_kind(model)
    functions = {TENSORS: _tensor_signature(model, predict)}
    if kind == "numbers":
        functions = {RAW: functions[TENSORS], EMBED: _tensor_signature(model, embed)}
    else:
        make = _image_signature if kind == "image" else _text_signature
        functions[RAW] = make(predict, preprocess, kind)
        functions[EMBED] = make(embed, preprocess, kind)
    served = tf.Module(name="served")
    # TensorFlow's variables: Keras's objects would save every weight a second time.
    served.weights = [variable.value for variable in model.variables]
    served.owned = _asset_owners(encoder, preprocess)
    return served, functions


def tensor_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Returns the spec of each input of the serving signature "tensors", by name."""
    inputs = model.input
    if not isinstance(inputs, dict):
        name = "pixels" if example_kind(model) == "image" else "inputs"
        inputs = {name: inputs}
    return {
        name: tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=name)
        for name, x in inputs.items()
    }


def decode_each(
    preprocess: ImagePreprocessor, encoded: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of images, of which some may be invalid.

    TF Serving puts requests of several clients into one batch, so an error would fail
    them all.

    Args:
        preprocess: Decodes one image to `[height, width, 3]`.
        encoded: Strings `[batch]`.

    Returns:
        float32 `[batch, height, width, 3]`, zeros for images that cannot be decoded;
        and bool `[batch]`, whether each was decoded. An empty batch gives one row of
        zeros, since oneDNN's convolutions fail on empty batches.
    """
    size = (preprocess.height, preprocess.width)
    # The code for batches takes a millisecond longer for a single image.
    pixels, decoded = tf.cond(
        tf.equal(tf.size(encoded), 1),
        lambda: _decode_one(encoded, size),
        lambda: _decode_many(preprocess, encoded, size),
    )
    return tf.ensure_shape(pixels, (None, *size, 3)), decoded


def _forward(model: keras.Model):
    """Returns a function from inputs to features and logits, for all signatures."""
    # Otherwise each signature would have a copy of the graph, a twentieth of the size
    # of a ResNet's weights. TensorFlow prunes outputs that a signature does not use.
    prefix, head = split(model)
    specs = tensor_specs(model)
    spec = specs if isinstance(model.input, dict) else next(iter(specs.values()))

    def forward(inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        features = prefix(inputs, training=False)
        return features, head(features, training=False)

    return tf.function(forward, input_signature=[spec], autograph=False)


def _text_signature(run: Callable[[Any], Response], preprocess, kind: str):
    prepare = getattr(preprocess, "to_longest", preprocess.batch)
    if kind == "pair":
        names = ["text", "text_pair"]
        raw = lambda text, text_pair: run(prepare(tf.stack([text, text_pair], axis=1)))
    else:
        names, raw = ["text"], lambda text: run(prepare(text))
    specs = [tf.TensorSpec((None,), tf.string, name=name) for name in names]
    return tf.function(raw, input_signature=specs, autograph=False)


def _image_signature(run: Callable[[Any], Response], preprocess, kind: str):
    def raw(image_bytes: tf.Tensor) -> Response:
        pixels, decoded = decode_each(preprocess, image_bytes)
        count = tf.size(decoded)
        return {name: _blank(x[:count], decoded) for name, x in run(pixels).items()}

    spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
    return tf.function(raw, input_signature=[spec], autograph=False)


def _tensor_signature(model: keras.Model, run: Callable[[Any], Response]):
    specs, is_dict = tensor_specs(model), isinstance(model.input, dict)

    def tensors(**inputs: tf.Tensor) -> Response:
        return run(inputs if is_dict else next(iter(inputs.values())))

    return tf.function(tensors, autograph=False).get_concrete_function(**specs)


def _blank(output: tf.Tensor, decoded: tf.Tensor) -> tf.Tensor:
    """Replaces the rows of images that could not be decoded by `""` or zeros."""
    blank = "" if output.dtype == tf.string else 0
    rows = tf.reshape(decoded, [-1] + [1] * (output.shape.rank - 1))
    return tf.where(rows, output, tf.constant(blank, output.dtype))


def _asset_owners(encoder, preprocess) -> list[Any]:
    """Returns the SavedModels whose tables and assets the signatures use."""
    network = getattr(encoder, "network", None)
    owners = [
        getattr(encoder, "module", None),
        getattr(network, "owner", None),
        getattr(preprocess, "module", None),
    ]
    return [owner for owner in owners if owner is not None]


def _decode_one(encoded: tf.Tensor, size: tuple[int, int]):
    pixels = decode_where_possible(encoded[0], size, _call_or_nan)
    decoded = tf.math.is_finite(pixels[0, 0, 0])
    pixels = tf.cond(decoded, lambda: pixels, lambda: tf.zeros_like(pixels))
    return pixels[tf.newaxis], decoded[tf.newaxis]


def _call_or_nan(
    function: Callable[[tf.Tensor], tf.Tensor], raw: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Returns `function(raw)`, or an image of NaN if it raises."""
    image = tf.data.Dataset.from_tensors(raw).map(function).ignore_errors()
    nan = tf.fill(tf.concat([size, [3]], axis=0), float("nan"))
    image = image.concatenate(tf.data.Dataset.from_tensors(nan))
    return _without_rewrites(image.take(1)).get_single_element()


def _decode_many(
    preprocess: ImagePreprocessor, encoded: tf.Tensor, size: tuple[int, int]
):
    count = tf.size(encoded, out_type=tf.int64)
    images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    images = images.map(
        lambda index, raw: (index, preprocess(raw)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    ).ignore_errors()
    # One more image, since a data set without elements has no batch to get.
    extra = tf.data.Dataset.from_tensors((count, tf.zeros((*size, 3))))
    images = _without_rewrites(images.concatenate(extra).batch(count + 1))
    index, pixels = images.get_single_element()
    indices = index[:, tf.newaxis]
    pixels = tf.scatter_nd(indices, pixels, [count + 1, *size, 3])
    decoded = tf.scatter_nd(indices, tf.ones_like(index), [count + 1])[:count] > 0
    return pixels[: tf.maximum(count, 1)], decoded


def _without_rewrites(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Turns off tuning and graph rewrites, which cost each request milliseconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)
