"""The functions of a SavedModel that are chosen, and their arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.forms import FORMS, write_keras3
from tlkit.encoders.saved_model.endpoints import find_endpoints
from tlkit.errors import EncoderError, SourceError


class Momentum(tf.Module):
    """As slim's modules on TF Hub: a batch norm's momentum is an argument."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(np.eye(3, dtype="float32"), name="dense/kernel")
        self.mean = tf.Variable([0.0] * 3, trainable=False, name="dense/moving_mean")

    @tf.function
    def __call__(self, inputs, training=False, batch_norm_momentum=0.75):
        x = inputs @ self.kernel
        if not training:
            return x - self.mean
        mean = tf.reduce_mean(x, 0)
        change = (mean - self.mean) * (1 - batch_norm_momentum)
        self.mean.assign_add(change)
        return x - mean


@pytest.fixture
def momentum(tmp_path):
    module = Momentum()
    for training in (False, True):
        module.__call__.get_concrete_function(
            tf.TensorSpec((None, 3)), training, tf.TensorSpec((), tf.float32)
        )
    tf.saved_model.save(module, str(tmp_path / "momentum"))
    return tmp_path / "momentum"


@pytest.mark.parametrize("open_graph", [True, False])
def test_an_argument_has_its_published_default(momentum, open_graph):
    encoder = tlkit.load_encoder(momentum, open_graph=open_graph)
    assert encoder.opened is open_graph
    tlkit.freeze(encoder, train="all", batch_norm="train")
    encoder(tf.constant([[4.0, 8.0, 0.0]]), training=True)
    (mean,) = (v for v in encoder.variables if "moving_mean" in v.path)
    np.testing.assert_allclose(mean.numpy(), [1.0, 2.0, 0.0])  # a quarter of the way


def test_an_argument_without_a_default_is_named(tmp_path):
    class Scaled(tf.Module):
        @tf.function
        def __call__(self, inputs, scale):
            return inputs * scale

    module = Scaled()
    specs = tf.TensorSpec((None, 3)), tf.TensorSpec(())
    module.__call__.get_concrete_function(*specs)
    tf.saved_model.save(module, str(tmp_path / "scaled"))
    with pytest.raises(EncoderError, match="'scale'.*no default"):
        tlkit.load_encoder(tmp_path / "scaled")


def test_the_most_general_trace_is_taken(tmp_path):
    class Any(tf.Module):
        @tf.function
        def __call__(self, inputs, training=False):
            return inputs * 2.0

    module = Any()
    for size in (2, None, 3):
        module.__call__.get_concrete_function(tf.TensorSpec((size, 3)))
    tf.saved_model.save(module, str(tmp_path / "any"))
    encoder = tlkit.load_encoder(tmp_path / "any")
    assert encoder.inputs_spec.shape.as_list() == [None, 3]
    assert not tlkit.inspect(encoder, verbose=0).takes_training


def test_endpoints_by_name(tmp_path):
    write_keras3(tmp_path / "archive")
    images = FORMS["keras3"].examples()
    both = tlkit.load_encoder(tmp_path / "archive")
    given = tlkit.load_encoder(
        tmp_path / "archive", endpoints=("call_training", "call_inference")
    )
    tlkit.freeze(both, train="all", batch_norm="train")
    np.testing.assert_allclose(given(images), both(images, training=True), rtol=1e-6)
    one = tlkit.load_encoder(tmp_path / "archive", endpoints=("call_inference", None))
    assert not tlkit.inspect(one, verbose=0).takes_training
    with pytest.raises(EncoderError, match="'nothing'.*call_inference, call_training"):
        tlkit.load_encoder(tmp_path / "archive", endpoints=("nothing", None))


def test_an_export_of_keras_runs_as_inference(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.export(tmp_path / "exported", verbose=False)
    encoder = tlkit.load_encoder(tmp_path / "exported")
    x = tf.ones((2, 3))
    np.testing.assert_allclose(encoder(x, training=True), model(x), rtol=1e-6)
    assert len(encoder.trainable_variables) == 2


def test_signatures_alone_are_refused(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(1.0)
    spec = tf.TensorSpec((None,), tf.float32)
    serve = tf.function(lambda x: x * module.kernel, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "served"), signatures=serve)
    with pytest.raises(EncoderError, match="signatures only.*serving_default"):
        tlkit.load_encoder(tmp_path / "served")
    module.other = serve
    tf.saved_model.save(module, str(tmp_path / "other"))
    with pytest.raises(EncoderError, match=r"endpoints=\('other', None\)"):
        tlkit.load_encoder(tmp_path / "other")


def test_a_folder_without_a_saved_model(tmp_path):
    with pytest.raises(SourceError, match=str(tmp_path)):
        tlkit.load_encoder(tmp_path)


def test_defaults_are_where_tensorflow_keeps_them(momentum):
    """Private: `_default_values` of a restored function."""
    module = tf.saved_model.load(str(momentum))
    endpoints = find_endpoints(module, "here")
    assert [c.numpy() for c in endpoints[True].constants] == [0.75]
