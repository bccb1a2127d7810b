"""Encoders over Keras models: the same rules as for opened SavedModels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import weighted


def make_model(dropout=0.0):
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for block in (1, 2, 3):
        x = layers.Conv2D(4, 3, padding="same", name=f"block{block}_conv1")(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.Activation("relu", name=f"block{block}_relu")(x)
        x = layers.Dropout(dropout, name=f"block{block}_drop")(x)
    outputs = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, outputs, name="small")


@pytest.fixture
def images():
    return tf.constant(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), tf.float32)


def test_blocks_have_the_names_of_layers():
    encoder = tlkit.load_encoder(make_model())
    assert [b.name for b in encoder.blocks] == ["block1", "block2", "block3"]
    assert [b.batch_norms for b in encoder.blocks] == [1, 1, 1]
    assert [p.name for p in encoder.blocks[0].parts] == ["block1_conv1", "block1_bn"]


def test_it_gives_what_the_model_gives(images):
    model = make_model(0.5)
    encoder = tlkit.load_encoder(model)
    np.testing.assert_allclose(encoder(images), model(images), rtol=1e-6)
    tlkit.freeze(encoder, train="head")
    np.testing.assert_allclose(encoder(images, training=True), model(images), rtol=1e-6)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("choice", ["head", "all", 1, ["block2"]])
def test_exactly_the_planned_variables_move(images, choice, batch_norm):
    encoder = tlkit.load_encoder(make_model(0.2))
    chosen = tlkit.freeze(encoder, train=choice, batch_norm=batch_norm)
    before = {v.path: v.numpy() for v in encoder.weights}
    with tf.GradientTape() as tape:
        loss = weighted(encoder(images, training=True))
    variables = encoder.trainable_variables
    assert {id(v) for v in variables} == {id(v) for b in chosen for v in b.learnable}
    gradients = tape.gradient(loss, [v.value for v in variables])
    if variables:
        keras.optimizers.Adam(0.1).apply(gradients, variables)
    moved = {v.path for v in encoder.weights if np.any(v.numpy() != before[v.path])}
    inside = [v for block in chosen for v in block.variables]
    planned = {
        v.path for v in inside if batch_norm == "train" or "moving" not in v.path
    }
    # A bias before a batch norm may stay where it is.
    biases = {path for path in planned if path.endswith("conv1/bias")}
    assert moved <= planned and planned - moved <= biases


def test_dropout_is_that_of_trained_blocks(images):
    encoder = tlkit.load_encoder(make_model(0.5))
    tlkit.freeze(encoder, train=1, batch_norm="frozen")
    one, two = (encoder(images, training=True).numpy() for _ in range(2))
    assert not np.allclose(one, two)
    tlkit.freeze(encoder, train="head")
    one, two = (encoder(images, training=True).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_file_keeps_what_was_chosen(images, tmp_path):
    inputs = keras.Input((8, 8, 3))
    encoder = tlkit.load_encoder(make_model())
    tlkit.freeze(encoder, train=1, batch_norm="train")
    model = keras.Model(inputs, encoder(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), model(images), rtol=1e-6)
    (again,) = [x for x in loaded.layers if isinstance(x, tlkit.Encoder)]
    assert again.batch_norm == "train"
    assert [b.trainable for b in again.blocks] == [False, False, True]


def test_a_subclassed_model_runs_as_a_whole(images):
    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs, training=False):
            return self.dense(inputs) * (2.0 if training else 1.0)

    model = Small()
    plain = model(images)
    encoder = tlkit.encoders.native_encoder.NativeEncoder(model)
    np.testing.assert_allclose(encoder(images, training=True), 2 * plain, rtol=1e-6)
    tlkit.freeze(encoder, train="head")
    np.testing.assert_allclose(encoder(images, training=True), plain, rtol=1e-6)
