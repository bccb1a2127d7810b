"""How an opened encoder behaves as a Keras layer."""

import keras
import numpy as np
import tensorflow as tf

import tlkit
from tests.encoders.compare import variables_of
from tests.encoders.forms import FORMS
from tests.encoders.test_forms import functional


def test_a_tape_does_not_watch_what_is_frozen(opened):
    """Private: reading a variable past the tape."""
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train=1)
    with tf.GradientTape() as tape:
        encoder(images, training=True)
    watched = {id(v) for v in tape.watched_variables()}
    assert watched == {id(v.value) for v in encoder.trainable_variables}
    tlkit.freeze(encoder, train="head")
    with tf.GradientTape() as tape:
        encoder(images, training=True)
    assert tape.watched_variables() == ()


def test_the_layers_own_switch_freezes(opened):
    encoder, images = opened("by_hand"), FORMS["by_hand"].examples()
    model = functional(encoder, images)
    encoder.batch_norm = "train"
    for owner in (encoder, model):
        owner.trainable = False
        assert encoder.trainable_variables == []
        before = [v.numpy() for v in variables_of(encoder)]
        inference = model(images, training=False)
        np.testing.assert_allclose(model(images, training=True), inference, rtol=1e-6)
        for variable, value in zip(variables_of(encoder), before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)
        owner.trainable = True
        assert len(encoder.trainable_variables) == 9
    tlkit.freeze(model, train=1)
    assert len(encoder.trainable_variables) == 3


def test_keras_fit_trains_unfrozen_blocks(opened):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train=["conv3"], batch_norm="train")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(encoder(inputs)))
    before = {v.path: v.numpy() for v in encoder.weights}
    model.compile("sgd", "mse")
    history = model.fit(images, np.ones((4, 2)), epochs=4, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    moved = {v.path for v in encoder.weights if np.any(v.numpy() != before[v.path])}
    block = {v.path for v in encoder.block("conv3").variables}
    assert moved and moved <= block
    assert {path for path in block if "moving" in path} <= moved


def test_names_of_weights_have_the_block_in_them(opened):
    encoder = opened("keras2")
    for block in encoder.blocks:
        assert {v.path.split("/")[0] for v in block.variables} == {block.name}
    paths = [v.path for v in encoder.weights]
    assert len(set(paths)) == len(paths)


def test_weights_go_through_a_file(opened, written, tmp_path):
    encoder, images = opened("keras2"), FORMS["keras2"].examples()
    model = functional(encoder, images)
    for variable in encoder.trainable_variables:
        variable.assign(variable * 1.5)
    expected = model(images).numpy()
    model.save_weights(tmp_path / "all.weights.h5")
    other = functional(tlkit.load_encoder(written("keras2")), images)
    assert not np.allclose(other(images), expected)
    other.load_weights(tmp_path / "all.weights.h5")
    np.testing.assert_allclose(other(images), expected, rtol=1e-6)
