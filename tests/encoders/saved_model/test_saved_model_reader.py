"""Modules in memory, tables, and inputs that do not fit."""

import re

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import variables_of
from tests.encoders.forms import FORMS, _ByHand, _Table, _trace
from tlkit.errors import EncoderError


def test_a_module_in_memory_is_copied():
    module = _ByHand()
    _trace(module, tf.TensorSpec((None, 6), tf.float32))
    encoder = tlkit.load_encoder(module)
    x = FORMS["by_hand"].examples()
    np.testing.assert_allclose(encoder(x), module(x), rtol=1e-5)
    assert len(encoder.blocks) == 3
    before = module.layers[0]["kernel"].numpy()
    for variable in encoder.trainable_variables:
        variable.assign(variable + 1.0)
    np.testing.assert_array_equal(module.layers[0]["kernel"].numpy(), before)


def test_a_module_that_was_never_traced():
    with pytest.raises(EncoderError, match="get_concrete_function"):
        tlkit.load_encoder(_ByHand())


def test_a_module_with_a_table_can_be_exported_again(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red\ngreen\nblue\nblack\n")
    module = _Table(words)
    _trace(module, tf.TensorSpec((None,), tf.string))
    encoder = tlkit.load_encoder(module)
    texts = FORMS["table"].examples()
    expected = module(texts).numpy()
    words.unlink()
    np.testing.assert_allclose(encoder(texts), expected, rtol=1e-5)
    served = tf.Module()
    served.owner = encoder.network.owner
    served.weights = [v.value for v in encoder.variables]
    spec = tf.TensorSpec((None,), tf.string)
    served.run = tf.function(encoder, input_signature=[spec])
    tf.saved_model.save(served, str(tmp_path / "served"))
    again = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(again.run(texts), expected, rtol=1e-5)


def test_tables_of_two_encoders_are_kept_apart(tmp_path):
    folders, texts = [], tf.constant(["red"])
    for i, order in enumerate(["red\ngreen\nblue\nblack", "green\nred\nblue\nblack"]):
        words = tmp_path / f"words_{i}.txt"
        words.write_text(order)
        module = _Table(words)
        _trace(module, tf.TensorSpec((None,), tf.string))
        tf.saved_model.save(module, str(tmp_path / str(i)))
        folders.append(tmp_path / str(i))
    one, two = (tlkit.load_encoder(folder) for folder in folders)
    assert not np.allclose(one(texts), two(texts))
    rows = [encoder.blocks[0].variables[0].numpy() for encoder in (one, two)]
    np.testing.assert_array_equal(*rows)


WRONG = [
    ("keras2", np.zeros((2, 8, 8), "float32"), "float32 [2, 8, 8]"),
    ("keras2", np.zeros((2, 8, 8, 1), "float32"), "float32 [2, 8, 8, 1]"),
    ("jax", np.zeros((3, 6), "float32"), "float32 [3, 6]"),
    ("table", np.zeros((2,), "float32"), "float32 [2]"),
    ("shared", np.zeros((2, 3), "float32"), "float32 [2, 3]"),
    ("text", np.zeros((2, 3), "int32"), "int32 [2, 3]"),
    ("text", {"input_word_ids": np.zeros((2, 3), "int32")}, "{input_word_ids: int32"),
]


@pytest.mark.parametrize(("name", "inputs", "came"), WRONG)
def test_inputs_that_do_not_fit(opened, name, inputs, came):
    encoder = opened(name)
    inputs = tf.nest.map_structure(tf.constant, inputs)
    with pytest.raises(EncoderError, match=re.escape(f"Received: {came}")) as caught:
        encoder(inputs)
    text = str(caught.value)
    specs = tf.nest.flatten(encoder.inputs_spec)
    assert all(spec.dtype.name in text for spec in specs) and "tlkit.inspect" in text


def test_inputs_of_another_width_are_cast(opened):
    encoder = opened("keras2")
    images = tf.constant(np.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3) % 7)
    expected = encoder(tf.cast(images, tf.float32))
    for dtype in (tf.uint8, tf.float64, tf.float16):
        np.testing.assert_allclose(encoder(tf.cast(images, dtype)), expected, rtol=1e-5)


def test_regularization_losses_are_those_of_what_is_trained(opened, restored):
    encoder, module = opened("keras2"), restored("keras2")
    images = FORMS["keras2"].examples()
    (loss,) = module.losses
    encoder(images)
    np.testing.assert_allclose(encoder.losses, [loss()], rtol=1e-6)
    kernel = encoder.block("conv1").learnable[0]
    with tf.GradientTape() as tape:
        encoder(images)
        (found,) = encoder.losses
    np.testing.assert_allclose(
        tape.gradient(found, kernel.value), 0.02 * kernel.numpy(), rtol=1e-5
    )
    tlkit.freeze(encoder, train=1)  # the regularizer is that of conv1
    encoder(images, training=True)
    assert encoder.losses == []


def test_regularization_losses_of_the_fallback(written):
    encoder = tlkit.load_encoder(written("keras2"), open_graph=False)
    images = FORMS["keras2"].examples()
    encoder(images)
    assert len(encoder.losses) == 1 and float(encoder.losses[0]) > 0
    tlkit.freeze(encoder, train="head")
    encoder(images)
    assert encoder.losses == []


def test_one_output_of_several(written, opened):
    tokens, outputs = FORMS["text"].examples(), opened("text")(FORMS["text"].examples())
    one = tlkit.load_encoder(written("text"), output="sequence_output")
    np.testing.assert_allclose(one(tokens), outputs["sequence_output"], rtol=1e-5)
    assert [block.name for block in one.blocks][-1] == "layer_1"
    names = ["pooled_output", "sequence_output"]
    two = tlkit.load_encoder(written("text"), output=names)(tokens)
    assert sorted(two) == names
    with pytest.raises(EncoderError, match="no output 'nothing'.*sequence_output"):
        tlkit.load_encoder(written("text"), output="nothing")


def test_what_the_module_does_not_let_be_trained_is_not(tmp_path):
    class Half(tf.Module):
        def __init__(self):
            super().__init__()
            self.a = tf.Variable([[2.0]], name="one/kernel")
            self.b = tf.Variable([[3.0]], name="two/kernel")
            self.trainable_list = [self.b]

        @tf.function
        def __call__(self, x, training=False):
            return tf.tanh(x @ self.a) @ self.b

    module = Half()
    _trace(module, tf.TensorSpec((None, 1), tf.float32))
    holder = tf.train.Checkpoint(module=module)
    holder.__call__ = module.__call__
    holder.variables = [module.a, module.b]
    holder.trainable_variables = [module.b]
    tf.saved_model.save(holder, str(tmp_path / "half"))
    encoder = tlkit.load_encoder(tmp_path / "half")
    assert [v.shape for v in encoder.trainable_variables] == [(1, 1)]
    assert float(encoder.trainable_variables[0].numpy()[0, 0]) == 3.0
    assert len(variables_of(encoder)) == 2
