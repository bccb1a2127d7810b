"""Taps: tensors from inside an encoder, as outputs of a Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import error
from tests.encoders.forms import FORMS
from tlkit.encoders import tap
from tlkit.errors import EncoderError


def test_a_model_with_several_outputs(opened):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    model = tap(encoder, ["conv1", "conv2", "conv2.0"])
    maps = model(images)
    assert list(maps) == ["conv1", "conv2", "conv2.0"]
    assert all(x.shape == (4, 8, 8, 4) for x in maps.values())
    assert [tuple(x.shape) for x in model.output.values()] == [
        (None, None, None, 4)
    ] * 3
    # What conv1 gives is its convolution, its batch norm and relu of the pictures.
    kernel, bias, gamma, beta, mean, variance = (
        v.numpy() for v in encoder.block("conv1").variables
    )
    x = tf.nn.conv2d(images, kernel, 1, "SAME") + bias
    x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)
    np.testing.assert_allclose(maps["conv1"], tf.nn.relu(x), atol=1e-5)


def test_the_last_tap_is_the_map_before_the_pooling(opened):
    for name in ("keras2", "tf1", "nameless", "densenet"):
        encoder, images = opened(name), FORMS[name].examples()
        last = encoder.blocks[-1].name
        found = encoder(images, taps=[last])[last]
        assert found.shape[:3] == (4, 8, 8)
        pooled = tf.reduce_mean(found, (1, 2))
        assert error(pooled, encoder(images)) < 1e-6


def test_the_last_tap_of_a_text_encoder_is_its_pooled_output(opened):
    encoder, tokens = opened("text"), FORMS["text"].examples()
    outputs = encoder(tokens)
    maps = tap(encoder, ["embeddings", "layer_0", "layer_1", "pooler"])(tokens)
    np.testing.assert_allclose(maps["pooler"], outputs["pooled_output"], rtol=1e-5)
    for i in (0, 1):
        expected = outputs["encoder_outputs"][i]
        np.testing.assert_allclose(maps[f"layer_{i}"], expected, atol=1e-5)


def test_taps_are_differentiable(opened):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    model = tap(encoder, ["conv2", "conv3"])
    with tf.GradientTape() as tape:
        maps = model(images, training=True)
        loss = tf.reduce_sum(maps["conv2"] ** 2) + tf.reduce_sum(maps["conv3"] ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert len(gradients) == len(encoder.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    # Frozen, the maps still have gradients with respect to the pictures.
    tlkit.freeze(model, train="head")
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps = model(images)
    assert np.linalg.norm(tape.gradient(maps["conv3"], images)) > 0


def test_what_lies_behind_the_deepest_tap_is_not_run(opened):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train="all", batch_norm="train")
    before = [v.numpy() for v in encoder.block("conv3").variables]
    encoder(images, training=True, taps=["conv2"])
    for variable, value in zip(encoder.block("conv3").variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_multi_scale_models_are_saved(opened, tmp_path):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    maps = tap(encoder, ["conv1", "conv3"])
    pooled = [keras.layers.GlobalMaxPooling2D()(x) for x in maps.output.values()]
    pooled.append(encoder(maps.input))
    outputs = keras.layers.Dense(2)(keras.layers.Concatenate()(pooled))
    model = keras.Model(maps.input, outputs)
    assert tlkit.encoders.find_encoder(model) is encoder
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), rtol=1e-5)
    # One encoder still, though it stands in the model twice.
    assert len(again.weights) == len(model.weights) == len(encoder.weights) + 2
    assert tlkit.encoders.find_encoder(again).opened


@pytest.mark.parametrize("name", ["keras2", "while"])
def test_a_tap_that_is_not_there(opened, name):
    with pytest.raises(EncoderError, match="There is no tap 'conv9'") as caught:
        tap(opened(name), ["conv9"])
    wanted = "conv1, conv2, conv3" if name == "keras2" else "no opened SavedModel"
    assert wanted in str(caught.value)


def test_a_model_without_an_encoder_has_no_taps():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(EncoderError, match="load_encoder"):
        tap(model, ["a"])
