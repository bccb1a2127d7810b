"""The network of an encoder is freed with the last encoder that uses it."""

import gc
import weakref

import keras
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder
from tlkit.errors import EncoderError

# No other test has encoders of this size: equal encoders share a network.
SIZE = 11
IMAGES = tf.ones((2, SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "1", SIZE)


def is_freed(reference):
    keras.backend.clear_session()
    gc.collect()
    return reference() is None


def test_a_network_is_freed_with_its_last_encoder(source):
    model = tlkit.image_classifier(source, 2, image_size=SIZE)
    network = weakref.ref(model.get_layer("encoder").network)
    outputs = model(IMAGES)
    clone = keras.models.clone_model(model)
    assert clone.get_layer("encoder").network is network()
    clone.set_weights(model.get_weights())
    del model
    assert not is_freed(network)
    tf.debugging.assert_near(clone(IMAGES), outputs)
    del clone
    assert is_freed(network)


def test_a_copy_in_a_scope_shares_the_network(source):
    encoder = tlkit.load_encoder(source)
    outputs = encoder(IMAGES)
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        copy = type(encoder).from_config(encoder.get_config())
    assert copy.network is encoder.network
    for variable, value in zip(copy.weights, encoder.weights, strict=True):
        variable.assign(value)
    tf.debugging.assert_near(copy(IMAGES), outputs)


def test_a_network_that_was_freed_cannot_run(source):
    encoder = tlkit.load_encoder(source)
    network, config = weakref.ref(encoder.network), encoder.get_config()
    kind = type(encoder)
    del encoder
    assert is_freed(network)
    copy = kind.from_config(config)
    with pytest.raises(EncoderError, match="not in memory.*load_model"):
        copy(IMAGES)
