"""Models of all kinds that `test_scope_copies.py` copies between strategies.

Run in a process with two logical CPUs; each of them prints what is wrong with it.
"""

import pathlib
import traceback

import keras
import numpy as np
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit.training.strategies.scope_copies import copy_into_scope, copy_out_of_scope

RANDOM = np.random.default_rng(0)
LABELS = ["a", "b", "c"]


def image(folder: pathlib.Path):
    source = write_image_encoder(folder / "image" / "1")
    model = tlkit.image_classifier(source, LABELS, image_size=8, dropout=0.5)
    tlkit.freeze(model, train=1, batch_norm="train")
    return model, RANDOM.uniform(0, 255, (2, 8, 8, 3)).astype("float32")


def text(folder):
    source = write_text_encoder(folder / "text" / "1")
    model = tlkit.text_classifier(source, LABELS, pooling="both", length=7)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    return model, {name: np.ones((2, 5), "int32") for name in names}


def native(folder):
    x = inputs = keras.Input((8, 8, 3))
    for name in ("stage1", "stage2"):
        x = keras.layers.Conv2D(4, 3, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    encoder = tlkit.load_encoder(keras.Model(inputs, x))
    model = tlkit.image_classifier(encoder, LABELS)
    tlkit.freeze(model, train=["stage2_conv"])
    return model, RANDOM.uniform(0, 255, (2, 8, 8, 3)).astype("float32")


def sequential(folder):
    """Waits for its input, and holds functions that no name finds."""
    factor = 2.0
    model = keras.Sequential(
        [
            keras.layers.Dense(4, activation=lambda x: tf.tanh(x) * factor),
            keras.layers.Lambda(lambda x: tf.square(x)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2, trainable=False),
        ]
    )
    inputs = RANDOM.normal(size=(3, 5)).astype("float32")
    model(inputs)
    return model, inputs


def functional(folder):
    """Several inputs and outputs, a shared layer, a frozen part, and ops."""
    inputs = {name: keras.Input((4,), name=name) for name in ("one", "two")}
    dense = keras.layers.Dense(4)
    x = keras.Input((4,))
    inner = keras.Model(x, keras.layers.Dense(4, activation="relu")(dense(x)))
    inner.trainable = False
    last = keras.layers.Dense(3)
    outputs = [last(inner(inputs["one"])), last(inputs["two"] + inputs["one"] * 2)]
    return keras.Model(inputs, outputs), {
        name: RANDOM.normal(size=(2, 4)).astype("float32") for name in inputs
    }


def adapted(folder):
    """Its state isn't all in variables."""
    data = RANDOM.normal(3, 2, size=(30, 5)).astype("float32")
    normalization = keras.layers.Normalization()
    normalization.adapt(data)
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(2)(normalization(inputs))), data


class Pair(keras.Model):
    """Its layers have numbers for names."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.embedding = keras.layers.Embedding(7, units)
        self.both = [keras.layers.Dense(3), keras.layers.Dense(2)]
        self.mean = keras.metrics.Mean()
        self.dropout = keras.layers.Dropout(0.2)

    def call(self, inputs, training=False):
        x = self.embedding(inputs["ids"])
        return self.both[1](self.dropout(self.both[0](x), training=training))

    def get_config(self):
        return super().get_config() | {"units": self.units}


def subclassed(folder):
    model, inputs = Pair(5), {"ids": np.ones((2, 4), "int32")}
    model(inputs)
    model.mean.update_state(3.0)
    return model, inputs


def custom_layer(folder):
    class Scale(keras.layers.Layer):
        def __init__(self, function, **kwargs):
            super().__init__(**kwargs)
            self.function = function

        def build(self, shape):
            self.still = self.add_weight(shape=(), trainable=False)
            self.scale = self.add_weight(shape=shape[-1:])

        def call(self, x):
            return self.function(x * self.scale) + self.still

        def get_config(self):
            function = keras.saving.serialize_keras_object(self.function)
            return super().get_config() | {"function": function}

        @classmethod
        def from_config(cls, config):
            function = keras.saving.deserialize_keras_object(config.pop("function"))
            return cls(function, **config)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Scale(lambda x: tf.exp(x))(inputs))
    model.compile("adam", lambda y, z: tf.reduce_mean(y - z), metrics=["mae"])
    return model, RANDOM.normal(size=(2, 4)).astype("float32")


KINDS = [image, text, native, sequential, functional, adapted, subclassed, custom_layer]


def check(make, folder: pathlib.Path, strategy: tf.distribute.Strategy) -> None:
    """Copies a model into a scope, changes the copy, copies it back, and out of any."""
    model, inputs = make(folder)
    for variable in model.trainable_weights:
        variable.assign(RANDOM.normal(size=variable.shape))
    before = outputs_of(model, inputs)
    inner = copy_into_scope(model, strategy)
    same_state(inner, model)
    lives_in(inner, strategy)
    for i in range(strategy.num_replicas_in_sync):
        close(outputs_of(inner, inputs, strategy, i), before)
    still_of_tlkit(inner, model)

    for variable in inner.weights:
        if variable.trainable or "moving" in variable.path:
            variable.assign(variable + 1)
    for layer in [layer for layer in inner.layers if layer.variables]:
        layer.trainable = not layer.trainable
    copy_out_of_scope(inner, model)
    same_state(inner, model)
    after = outputs_of(inner, inputs, strategy, 0)
    close(outputs_of(model, inputs), after)
    assert any(abs(x - y).max() > 1e-3 for x, y in zip(before, after, strict=True))

    out = copy_into_scope(inner, tf.distribute.get_strategy())
    same_state(out, inner)
    lives_in(out, None)
    close(outputs_of(out, inputs), outputs_of(inner, inputs, strategy, 1))


def same_state(one, other):
    pairs = list(zip(one.variables, other.variables, strict=True))
    pairs += zip(inner_metrics(one), inner_metrics(other), strict=True)
    assert pairs
    for a, b in pairs:
        assert (a.path, a.trainable, a.dtype) == (b.path, b.trainable, b.dtype)
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    trained = [[v.path for v in model.trainable_weights] for model in (one, other)]
    assert trained[0] == trained[1]
    for a, b in zip(one.layers, other.layers, strict=True):
        assert (a.name, a.trainable, type(a)) == (b.name, b.trainable, type(b))


def inner_metrics(model):
    """But for the metrics of `compile`."""
    return [v for m in model.metrics if m.name == "mean" for v in m.variables]


def lives_in(model, strategy):
    for variable in [*model.variables, *inner_metrics(model)]:
        home = getattr(variable.value, "distribute_strategy", None)
        replicas = 1 if home is None else home.num_replicas_in_sync
        assert home is strategy or strategy is None and replicas == 1


def outputs_of(model, inputs, strategy=None, replica=0):
    """What a replica gives, traced there."""
    if strategy is None:
        return [x.numpy() for x in tf.nest.flatten(model(inputs))]
    found = strategy.run(tf.function(lambda: tf.nest.flatten(model(inputs))))
    return [strategy.experimental_local_results(x)[replica].numpy() for x in found]


def close(ones, others):
    for one, other in zip(ones, others, strict=True):
        # A logit near zero is a difference of larger numbers, with their rounding.
        scale = abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale)


def still_of_tlkit(inner, model):
    assert tlkit.models.task_of(inner) == tlkit.models.task_of(model)
    preprocessing = tlkit.models.preprocessing
    if tlkit.models.task_of(model) is not None:
        assert preprocessing(inner) == preprocessing(model)
        encoder, twin = model.get_layer("encoder"), inner.get_layer("encoder")
        assert twin.facts == encoder.facts
        assert twin.batch_norm == encoder.batch_norm
        assert twin.summary() == encoder.summary()
        assert [x.name for x in tlkit.models.split(inner)] == ["trunk", "top"]


def check_all(folder: str, strategy: tf.distribute.Strategy) -> dict[str, str]:
    """What is wrong with each kind; an empty text if nothing is."""
    wrong = {}
    for make in KINDS:
        try:
            check(make, pathlib.Path(folder), strategy)
            wrong[make.__name__] = ""
        except Exception:
            wrong[make.__name__] = traceback.format_exc()
    return wrong
