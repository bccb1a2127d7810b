"""Small SavedModels in the forms that others publish, written by the same libraries.

`FORMS` lists them. Every network is tiny and random. The forms differ in the structure
of the SavedModel: which functions call which, where the variables are, and which
tensors are captured.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Form:
    """A form of SavedModel, and the blocks that should be found in it.

    Args:
        name: A word for it.
        write: Writes it into a folder.
        examples: Returns a batch of inputs.
        blocks: Names of its blocks.
        batch_norms: Number of its batch norms.
        opened: Whether its graph can be opened; if not, a part of the reason.
        random: Whether training draws random numbers.
    """

    name: str
    write: Callable[[pathlib.Path], None]
    examples: Callable[[], Any]
    blocks: tuple[str, ...]
    batch_norms: int = 0
    opened: bool | str = True
    random: bool = False


def _images(size: int = 8, dtype: str = "float32") -> tf.Tensor:
    pixels = np.random.default_rng(3).uniform(size=(4, size, size, 3))
    return tf.constant(pixels.astype(dtype))


def _tokens() -> dict[str, tf.Tensor]:
    generator = np.random.default_rng(4)
    ids = generator.integers(1, 20, (4, 6))
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]] * 2)
    types = generator.integers(0, 2, (4, 6))
    arrays = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}
    return {key: tf.constant(array, tf.int32) for key, array in arrays.items()}


# === Keras 2 ===


def _keras2_unit(layers, x, name: str, filters: int):
    y = layers.Conv2D(filters, 3, padding="same", name=f"{name}_1_conv")(x)
    y = layers.BatchNormalization(name=f"{name}_1_bn")(y)
    y = layers.Dropout(0.2, name=f"{name}_drop")(y)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation("relu", name=f"{name}_out")(x)


def write_keras2(folder: pathlib.Path, stages: tuple[int, ...] = (2, 3)) -> None:
    """Keras 2's `model.save`: convolutions, batch norms, dropout, residual units."""
    import tf_keras

    layers = tf_keras.layers
    inputs = tf_keras.Input((None, None, 3))
    regularizer = tf_keras.regularizers.L2(0.01)
    x = layers.Conv2D(
        4, 3, padding="same", name="conv1_conv", kernel_regularizer=regularizer
    )(inputs)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.Activation("relu")(x)
    for stage in stages:
        for unit in (1, 2):
            x = _keras2_unit(layers, x, f"conv{stage}_block{unit}", 4)
    outputs = layers.GlobalAveragePooling2D()(x)
    tf_keras.Model(inputs, outputs).save(folder)


def write_text(folder: pathlib.Path) -> None:
    """As the Model Garden writes BERTs: dict in; dict with a list in it out."""
    import tf_keras

    layers = tf_keras.layers
    width, heads = 8, 2
    inputs = {
        key: tf_keras.Input((None,), dtype=tf.int32, name=key)
        for key in ("input_word_ids", "input_mask", "input_type_ids")
    }
    words = layers.Embedding(20, width, name="word_embeddings")
    types = layers.Embedding(2, width, name="type_embeddings")
    x = words(inputs["input_word_ids"]) + types(inputs["input_type_ids"])
    x = layers.LayerNormalization(name="embeddings/layer_norm")(x)
    x = layers.Dropout(0.1)(x)

    def spread(tensors):
        # The mask takes its shape from the embeddings: no value of theirs.
        data, mask = tensors
        length = tf.shape(data)[1]
        ones = tf.ones((tf.shape(data)[0], length, 1), data.dtype)
        mask = tf.reshape(mask, (-1, 1, tf.shape(mask)[1]))
        return ones * tf.cast(mask, data.dtype)

    mask = layers.Lambda(spread)([x, inputs["input_mask"]])
    states = []
    for i in range(2):
        name = f"transformer/layer_{i}"
        attention = layers.MultiHeadAttention(
            heads, width // heads, dropout=0.1, name=f"{name}/self_attention"
        )
        y = attention(x, x, attention_mask=mask)
        y = layers.Dropout(0.1)(y)
        x = layers.LayerNormalization(name=f"{name}/self_attention_layer_norm")(x + y)
        y = layers.Dense(16, "gelu", name=f"{name}/intermediate")(x)
        y = layers.Dense(width, name=f"{name}/output")(y)
        y = layers.Dropout(0.1)(y)
        x = layers.LayerNormalization(name=f"{name}/output_layer_norm")(x + y)
        states.append(x)
    first = layers.Lambda(lambda t: t[:, 0])(x)
    pooled = layers.Dense(width, "tanh", name="pooler_transform")(first)
    outputs = {
        "default": pooled,
        "encoder_outputs": states,
        "pooled_output": pooled,
        "sequence_output": x,
    }
    tf_keras.Model(inputs, outputs).save(folder)


# === tf.Module ===


def _weight(generator, shape, name: str, dtype=tf.float32) -> tf.Variable:
    values = generator.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
    return tf.Variable(values, dtype=dtype, name=name)


def _trace(module: tf.Module, *specs, inputs: Any = None) -> None:
    nest = inputs if inputs is not None else specs[0]
    for training in (False, True):
        module.__call__.get_concrete_function(nest, training=training)


class _ByHand(tf.Module):
    """A network of dense layers and batch norms, in plain TensorFlow."""

    def __init__(self, dtype=tf.float32, names="{kind}_{i}/{what}"):
        super().__init__()
        generator = np.random.default_rng(1)
        self.layers = []
        for i in range(3):
            shapes = {"kernel": (6, 6), "gamma": (6,), "beta": (6,)}
            shapes |= {"moving_mean": (6,), "moving_variance": (6,)}
            layer = {}
            for what, shape in shapes.items():
                name = names.format(kind="dense", i=i, what=what, n=5 * i + len(layer))
                value = _weight(generator, shape, name, dtype)
                if what == "moving_variance":
                    value.assign(tf.abs(value) + 1)
                trainable = not what.startswith("moving")
                layer[what] = tf.Variable(value, trainable=trainable, name=name)
            self.layers.append(layer)

    @tf.function
    def __call__(self, inputs, training=False):
        x = inputs
        for layer in self.layers:
            x = x @ layer["kernel"]
            if training:
                mean, variance = tf.nn.moments(x, [0])
                for key, new in (("moving_mean", mean), ("moving_variance", variance)):
                    average = layer[key]
                    average.assign(average * 0.9 + new * tf.cast(0.1, new.dtype))
            else:
                mean, variance = layer["moving_mean"], layer["moving_variance"]
            x = tf.nn.batch_normalization(
                x, mean, variance, layer["beta"], layer["gamma"], 1e-3
            )
            x = tf.tanh(x)
        return x


def _write_by_hand(folder: pathlib.Path, dtype=tf.float32, **kwargs) -> None:
    module = _ByHand(dtype, **kwargs)
    _trace(module, tf.TensorSpec((None, 6), dtype))
    tf.saved_model.save(module, str(folder))


def _vectors(dtype: str = "float32") -> tf.Tensor:
    return tf.constant(np.random.default_rng(5).normal(size=(4, 6)).astype(dtype))


# === Keras 3 ===


def write_keras3(folder: pathlib.Path) -> None:
    """Keras 3's `ExportArchive`, with an endpoint for each way to run."""
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="block1_conv")(inputs)
    x = layers.BatchNormalization(name="block1_bn")(x)
    x = layers.Activation("relu")(x)
    x = layers.Conv2D(4, 3, name="block2_conv")(x)
    x = layers.BatchNormalization(name="block2_bn")(x)
    x = layers.Activation("relu")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, 8, 8, 3), tf.float32)]
    archive.add_endpoint(
        "call_inference", lambda x: model(x, training=False), signature
    )
    archive.add_endpoint("call_training", lambda x: model(x, training=True), signature)
    archive.write_out(folder, verbose=False)


def write_reexport(folder: pathlib.Path) -> None:
    """A module that `tlkit` opened, written again in the reusable form."""
    import tlkit

    first = folder.parent / f"{folder.name}_first"
    write_keras2(first, stages=(2,))
    encoder = tlkit.load_encoder(first)
    tlkit.freeze(encoder, train="all", batch_norm="train")
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(
        lambda x, training=False: encoder(x, training=training)
    )
    module.variables = [v.value for v in encoder.variables]
    module.trainable_variables = [v.value for v in encoder.trainable_variables]
    _trace(module, tf.TensorSpec((None, None, None, 3), tf.float32))
    tf.saved_model.save(module, str(folder))


# === TensorFlow 1 ===


def _slim(images: tf.Tensor, training: bool) -> tf.Tensor:
    """Two units as slim names them, with update ops in the graph's collection."""
    v1 = tf.compat.v1

    def conv(x, filters, name):
        with v1.variable_scope(name):
            shape = (3, 3, x.shape[-1], filters)
            weights = v1.get_variable("weights", shape)
            x = tf.nn.conv2d(x, weights, 1, "SAME")
            with v1.variable_scope("BatchNorm"):
                return tf.nn.relu(_slim_batch_norm(x, training))

    with v1.variable_scope("resnet_v1_50", reuse=v1.AUTO_REUSE):
        x = conv(images, 4, "conv1")
        for block in (1, 2):
            scope = f"block{block}/unit_1/bottleneck_v1/conv1"
            x = x + conv(x, 4, scope)
    return tf.reduce_mean(x, (1, 2))


def _slim_batch_norm(x: tf.Tensor, training: bool) -> tf.Tensor:
    v1 = tf.compat.v1
    size = (x.shape[-1],)
    ones, zeros = v1.ones_initializer(), v1.zeros_initializer()
    gamma = v1.get_variable("gamma", size, initializer=ones)
    beta = v1.get_variable("beta", size, initializer=zeros)
    mean = v1.get_variable("moving_mean", size, initializer=zeros, trainable=False)
    variance = v1.get_variable(
        "moving_variance", size, initializer=ones, trainable=False
    )
    if not training:
        return v1.nn.fused_batch_norm(
            x, gamma, beta, mean, variance, is_training=False
        )[0]
    y, new_mean, new_variance = v1.nn.fused_batch_norm(x, gamma, beta)
    for average, new in ((mean, new_mean), (variance, new_variance)):
        update = v1.assign_sub(average, (average - new) * 0.1)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
    return y


class _Slim(tf.Module):
    def __init__(self):
        super().__init__()

        def both(images):
            inference = _slim(images, training=False)
            training = _slim(images, training=True)
            updates = tf.compat.v1.get_collection("update_ops")
            with tf.control_dependencies(updates):
                return inference, tf.identity(training)

        spec = tf.TensorSpec((None, 8, 8, 3), tf.float32)
        self.wrapped = tf.compat.v1.wrap_function(both, [spec])
        images = self.wrapped.inputs[0]
        inference, training = self.wrapped.outputs
        self.inference = self.wrapped.prune(images, inference)
        self.training = self.wrapped.prune(images, training)

    @tf.function
    def __call__(self, images, training=False):
        return self.training(images) if training else self.inference(images)


def write_tf1(folder: pathlib.Path) -> None:
    """TF1 code in `tf.compat.v1.wrap_function`, as TF Hub's slim modules are."""
    module = _Slim()
    _trace(module, tf.TensorSpec((None, 8, 8, 3), tf.float32))
    # As TF Hub's exporter did: the lists are attributes.
    graph = module.wrapped.graph
    module.variables_ = graph.variables
    tf.saved_model.save(module, str(folder))


# === Forms that cannot be opened ===

_STABLEHLO = """
module @jax {{
  func.func public @main({arguments}) -> {result} {{
    {body}
  }}
}}
"""


def _call_stablehlo(arguments: str, result: str, body: str, tensors, shape):
    # jax2tf writes this op; TensorFlow gives it no public name. The module may be
    # text. tests/encoders notice when that ends.
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    text = _STABLEHLO.format(arguments=arguments, result=result, body=body)
    (made,) = gen_xla_ops.xla_call_module(
        args=tensors,
        version=9,
        module=text.encode(),
        Sout=[shape],
        Tout=[tf.float32],
        platforms=["CPU"],
    )
    return made


def _stablehlo_dot(a, b, shapes: tuple[str, str, str], contracting: tuple[int, int]):
    left, right, result = (f"tensor<{shape}xf32>" for shape in shapes)
    body = (
        f"%0 = stablehlo.dot_general %a, %b, contracting_dims = "
        f"[{contracting[0]}] x [{contracting[1]}] : ({left}, {right}) -> {result}\n"
        f"    return %0 : {result}"
    )
    shape = [int(size) for size in shapes[2].split("x")]
    arguments = f"%a: {left}, %b: {right}"
    return _call_stablehlo(arguments, result, body, [a, b], shape)


class _Jax(tf.Module):
    """A dense layer whose forward and backward pass are calls of StableHLO."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(7)
        self.kernel = _weight(generator, (6, 5), "params/kernel")

    @tf.function
    def __call__(self, inputs, training=False):
        @tf.custom_gradient
        def dot(x, kernel):
            def gradient(upstream):
                to_x = _stablehlo_dot(upstream, kernel, ("4x5", "6x5", "4x6"), (1, 1))
                to_kernel = _stablehlo_dot(x, upstream, ("4x6", "4x5", "6x5"), (0, 0))
                return to_x, to_kernel

            return _stablehlo_dot(x, kernel, ("4x6", "6x5", "4x5"), (1, 0)), gradient

        return tf.tanh(dot(inputs, self.kernel))


def write_jax(folder: pathlib.Path) -> None:
    """As jax2tf writes: the network is one op that holds a StableHLO module."""
    module = _Jax()
    _trace(module, tf.TensorSpec((4, 6), tf.float32))
    tf.saved_model.save(module, str(folder))


class _While(tf.Module):
    """A recurrent layer as a loop over time."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(8)
        self.kernel = _weight(generator, (6, 6), "rnn/kernel")
        self.dense = _weight(generator, (6, 5), "dense/kernel")

    @tf.function
    def __call__(self, inputs, training=False):
        state = tf.zeros_like(inputs)
        for _ in tf.range(3):
            state = tf.tanh(inputs + state @ self.kernel)
        return state @ self.dense


def write_while(folder: pathlib.Path) -> None:
    """A loop in the graph."""
    module = _While()
    _trace(module, tf.TensorSpec((None, 6), tf.float32))
    tf.saved_model.save(module, str(folder))


# === Forms with more than a graph ===


class _Table(tf.Module):
    """Words to numbers by a table that is filled from an asset."""

    def __init__(self, vocabulary: pathlib.Path):
        super().__init__()
        generator = np.random.default_rng(9)
        self.asset = tf.saved_model.Asset(str(vocabulary))
        self.table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                self.asset.asset_path,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )
        self.embedding = _weight(generator, (5, 6), "embedding/weights")
        self.dense = _weight(generator, (6, 4), "dense/kernel")

    @tf.function
    def __call__(self, texts, training=False):
        words = tf.strings.split(texts).to_tensor("")
        rows = tf.gather(self.embedding, self.table.lookup(words))
        return tf.tanh(tf.reduce_mean(rows, 1) @ self.dense)


def write_table(folder: pathlib.Path) -> None:
    """A lookup table and an asset."""
    vocabulary = folder.parent / f"{folder.name}_words.txt"
    vocabulary.write_text("red\ngreen\nblue\nblack\n")
    module = _Table(vocabulary)
    _trace(module, tf.TensorSpec((None,), tf.string))
    tf.saved_model.save(module, str(folder))
    vocabulary.unlink()


def _texts() -> tf.Tensor:
    return tf.constant(["red green", "blue", "pink black red", "green green"])


# === Shapes of networks ===


class _Shared(tf.Module):
    """As ALBERT: an embedding, one layer that is run three times, a pooler."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(10)
        self.embedding = _weight(generator, (20, 6), "word_embeddings/embeddings")
        self.kernel = _weight(generator, (6, 6), "shared_layer/intermediate/kernel")
        self.out = _weight(generator, (6, 6), "shared_layer/output/kernel")
        self.pooler = _weight(generator, (6, 6), "pooler/kernel")

    @tf.function
    def __call__(self, ids, training=False):
        x = tf.gather(self.embedding, ids)
        for _ in range(3):
            x = x + tf.tanh(tf.nn.relu(x @ self.kernel) @ self.out)
        return tf.tanh(tf.reduce_mean(x, 1) @ self.pooler)


def write_shared(folder: pathlib.Path) -> None:
    """Layers that share their variables."""
    module = _Shared()
    _trace(module, tf.TensorSpec((None, None), tf.int32))
    tf.saved_model.save(module, str(folder))


def _save_keras2(inputs, outputs, folder: pathlib.Path) -> None:
    import tf_keras

    tf_keras.Model(inputs, outputs).save(folder)


def write_unet(folder: pathlib.Path) -> None:
    """A skip connection across the network: it can be cut at both ends only."""
    import tf_keras

    layers = tf_keras.layers
    inputs = tf_keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3, padding="same", name="entry")(inputs)
    down = layers.Conv2D(4, 3, 2, padding="same", name="down_1")(first)
    deep = layers.Conv2D(4, 3, padding="same", name="down_2")(down)
    up = layers.UpSampling2D()(layers.Concatenate()([deep, down]))
    joined = layers.Concatenate()([up, first])
    outputs = layers.Conv2D(4, 3, padding="same", name="up_1")(joined)
    outputs = layers.Conv2D(2, 1, name="exit")(outputs)
    _save_keras2(inputs, outputs, folder)


def write_densenet(folder: pathlib.Path) -> None:
    """Every unit reads the outputs of all units before it."""
    import tf_keras

    layers = tf_keras.layers
    inputs = tf_keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv1/conv")(inputs)
    for stage, unit in ((2, 1), (3, 1), (3, 2)):
        name = f"conv{stage}_block{unit}"
        y = layers.BatchNormalization(name=f"{name}_0_bn")(x)
        y = layers.Activation("relu")(y)
        y = layers.Conv2D(2, 3, padding="same", name=f"{name}_1_conv")(y)
        x = layers.Concatenate()([x, y])
    _save_keras2(inputs, layers.GlobalAveragePooling2D()(x), folder)


class _Nameless(tf.Module):
    """A ResNet whose variables are called v0, v1, …"""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(11)
        self.kernels = [
            _weight(generator, (3, 3, 3 if i == 0 else 4, 4), f"v{i}") for i in range(7)
        ]

    @tf.function
    def __call__(self, images, training=False):
        x = tf.nn.relu(tf.nn.conv2d(images, self.kernels[0], 1, "SAME"))
        for one, two in zip(self.kernels[1::2], self.kernels[2::2], strict=True):
            y = tf.nn.relu(tf.nn.conv2d(x, one, 1, "SAME"))
            x = tf.nn.relu(x + tf.nn.conv2d(y, two, 1, "SAME"))
        return tf.reduce_mean(x, (1, 2))


def write_nameless(folder: pathlib.Path) -> None:
    """Variable names without meaning."""
    module = _Nameless()
    _trace(module, tf.TensorSpec((None, 8, 8, 3), tf.float32))
    tf.saved_model.save(module, str(folder))


# === Custom gradients ===


class _Swish(tf.Module):
    """TensorFlow's own swish, and a gradient that is not the derivative."""

    def __init__(self):
        super().__init__()
        generator = np.random.default_rng(12)
        self.kernels = [_weight(generator, (6, 6), f"block{i}/kernel") for i in (1, 2)]

    @tf.function
    def __call__(self, inputs, training=False):
        @tf.custom_gradient
        def scaled(x):
            y = tf.tanh(x)
            return y, lambda upstream: 3.0 * upstream * (1.0 - y * y)

        x = inputs
        for kernel in self.kernels:
            x = scaled(tf.nn.silu(x @ kernel))
        return x


def write_swish(folder: pathlib.Path, custom_gradients: bool = True) -> None:
    """Custom gradients, written with the module."""
    module = _Swish()
    _trace(module, tf.TensorSpec((None, 6), tf.float32))
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=custom_gradients)
    tf.saved_model.save(module, str(folder), options=options)


def write_swish_without(folder: pathlib.Path) -> None:
    """Custom gradients that were not written: their names lead nowhere."""
    write_swish(folder, custom_gradients=False)


CONVS = ("conv1", "conv2", "conv3")
DENSE = ("dense0", "dense1", "dense2")
NUMBERS = ("block_00", "block_01", "block_02", "block_03")
BERT = ("embeddings", "layer_0", "layer_1", "pooler")

FORMS = {
    form.name: form
    for form in (
        Form("keras2", write_keras2, _images, CONVS, 5, random=True),
        Form("text", write_text, _tokens, BERT, random=True),
        Form("by_hand", _write_by_hand, _vectors, DENSE, 3),
        Form(
            "float64",
            lambda folder: _write_by_hand(folder, tf.float64),
            lambda: _vectors("float64"),
            DENSE,
            3,
        ),
        Form("keras3", write_keras3, _images, ("block1", "block2"), 2),
        Form("reexport", write_reexport, _images, CONVS[:2], 3, random=True),
        Form("tf1", write_tf1, _images, ("stem", "block1", "block2"), 3),
        Form("jax", write_jax, _vectors, ("whole",), opened="a JAX export"),
        Form("while", write_while, _vectors, ("whole",), opened="control flow"),
        Form("table", write_table, _texts, ("embeddings", "dense")),
        Form(
            "shared",
            write_shared,
            lambda: _tokens()["input_word_ids"],
            ("embeddings", "shared_layer", "pooler"),
        ),
        Form("unet", write_unet, _images, ("entry", "down", "block_02", "exit")),
        Form("densenet", write_densenet, _images, CONVS, 3),
        Form("nameless", write_nameless, _images, NUMBERS),
        Form("swish", write_swish, _vectors, ("block1", "block2")),
    )
}
