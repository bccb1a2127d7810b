"""What `inspect` says of an encoder."""

import json

import keras
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.forms import FORMS


@pytest.mark.parametrize("name", FORMS)
def test_every_form_can_be_inspected(opened, name):
    found = tlkit.inspect(opened(name), verbose=0)
    assert found.opened is (FORMS[name].opened is True)
    assert found.batch_norms == FORMS[name].batch_norms
    assert tuple(block.name for block in found.blocks) == FORMS[name].blocks
    assert found.host_ops == () or name == "table"
    assert found.file_ops == () or name == "table"
    page = str(found)
    assert all(block.name in page for block in found.blocks)
    if not found.opened:
        assert FORMS[name].opened in page
    notes = json.loads(json.dumps(found.to_json()))
    assert notes["parameters"] == found.parameters > 0
    assert notes["why_not_opened"] == found.why_not_opened


def test_what_it_takes_and_gives(opened, capsys):
    tlkit.inspect(opened("text"))
    page = capsys.readouterr().out
    assert "input_word_ids: int32 [?, ?]" in page
    assert "sequence_output: float32 [?, ?, 8]" in page
    tlkit.inspect(opened("jax"))
    page = capsys.readouterr().out
    assert "inputs      float32 [4, 6]" in page


def test_tables_and_files(written):
    found = tlkit.inspect(written("table"), verbose=0)
    assert {"LookupTableFindV2", "StringSplitV2"} <= set(found.host_ops)
    assert found.file_ops == ("InitializeTableFromTextFileV2",)
    assert "not on TPU  " in str(found) and "files or network" in str(found)


def test_side_effects_are_reported_and_never_run(tmp_path):
    target = tmp_path / "stolen.txt"

    class Writes(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable([[2.0]], name="dense/kernel")

        @tf.function
        def __call__(self, x, training=False):
            tf.io.write_file(str(target), "secret")
            return x @ self.kernel

    module = Writes()
    module.__call__.get_concrete_function(tf.TensorSpec((None, 1)))
    tf.saved_model.save(module, str(tmp_path / "writes"))
    encoder = tlkit.load_encoder(tmp_path / "writes", trust=True)
    assert tlkit.inspect(encoder, verbose=0).file_ops == ("WriteFile",)
    encoder(tf.ones((1, 1)))  # an opened graph is pure: it computes and nothing else
    assert not target.exists()


def test_python_code_is_not_opened(tmp_path):
    class Python(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable([[2.0]], name="dense/kernel")

        @tf.function
        def __call__(self, x, training=False):
            return tf.numpy_function(lambda v: v + 1, [x @ self.kernel], tf.float32)

    module = Python()
    module.__call__.get_concrete_function(tf.TensorSpec((None, 1)))
    tf.saved_model.save(module, str(tmp_path / "python"))
    found = tlkit.inspect(tmp_path / "python", trust=True, verbose=0)
    assert not found.opened and "Python code" in found.why_not_opened
    assert set(found.host_ops) == {"PyFunc"} == set(found.file_ops)


def test_a_keras_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    found = tlkit.inspect(model, verbose=0)
    assert found.parameters == 8 and found.host_ops == ()
