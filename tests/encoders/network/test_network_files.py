"""`.keras` files stand alone, and encoders are cloned without a file."""

import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests import forked
from tests.encoders.compare import assert_close, gradients_of, variables_of
from tests.encoders.forms import FORMS
from tests.encoders.test_forms import functional
from tlkit.encoders import opened_encoder as opened_module

SAVED = [
    name for name, form in FORMS.items() if form.opened is True and name != "table"
]

FRESH = """
import json, os, pathlib, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
import tlkit
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(path)
    data = np.load(path.with_suffix(".npz"))
    given = {k[3:]: tf.constant(data[k]) for k in data if k.startswith("in_")}
    inputs = given.get("inputs", given)
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(inputs))
        loss = tf.add_n([tf.reduce_sum(x) for x in outputs])
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    arrays = {f"out_{i}": x.numpy() for i, x in enumerate(outputs)}
    for i, gradient in enumerate(gradients):
        arrays[f"gradient_{i}"] = tf.convert_to_tensor(gradient).numpy()
    np.savez(path.with_suffix(".found.npz"), **arrays)
"""


def _total(model, inputs):
    outputs = tf.nest.flatten(model(inputs))
    return tf.add_n([tf.reduce_sum(x) for x in outputs])


@pytest.fixture(scope="module")
def files(_opened, tmp_path_factory):
    """A `.keras` file of each form, and the outputs and gradients of its model."""
    folder = tmp_path_factory.mktemp("files")
    for name in SAVED:
        encoder, inputs = _opened(name), FORMS[name].examples()
        tlkit.freeze(encoder, train=1)
        model = functional(encoder, inputs)
        model.save(folder / f"{name}.keras")
        given = inputs if isinstance(inputs, dict) else {"inputs": inputs}
        arrays = {f"in_{key}": value.numpy() for key, value in given.items()}
        with tf.GradientTape() as tape:
            loss = _total(model, inputs)
        variables = [v.value for v in model.trainable_variables]
        for i, x in enumerate(tf.nest.flatten(model(inputs))):
            arrays[f"out_{i}"] = x.numpy()
        for i, gradient in enumerate(tape.gradient(loss, variables)):
            arrays[f"gradient_{i}"] = tf.convert_to_tensor(gradient).numpy()
        np.savez(folder / f"{name}.npz", **arrays)
        tlkit.freeze(encoder, train="all")
    return folder


def test_files_stand_alone_in_a_fresh_process(files):
    command = [sys.executable, "-c", FRESH, str(files)]
    root = pathlib.Path(tlkit.__file__).parents[1]
    done = forked.run(command, capture_output=True, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in SAVED:
        expected, found = (
            np.load(files / f"{name}.npz"),
            np.load(files / f"{name}.found.npz"),
        )
        wanted = [key for key in expected if not key.startswith("in_")]
        assert set(found) == set(wanted)
        for key in wanted:
            scale = max(np.abs(expected[key]).max(), 1e-3)
            np.testing.assert_allclose(found[key], expected[key], atol=1e-5 * scale)


@pytest.mark.parametrize("name", ["keras2", "swish", "by_hand"])
def test_a_file_is_loaded_in_the_same_process(files, monkeypatch, name):
    monkeypatch.setattr(opened_module, "_NETWORKS", {})  # as if it were another
    model = keras.saving.load_model(files / f"{name}.keras")
    data = np.load(files / f"{name}.npz")
    np.testing.assert_allclose(model(data["in_inputs"]), data["out_0"], rtol=1e-5)
    encoder = model.layers[-1]
    trained = [block.name for block in encoder.blocks if block.trainable]
    assert trained == [encoder.blocks[-1].name]


@pytest.mark.parametrize("name", ["keras2", "swish", "table"])
def test_clones_have_weights_of_their_own(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    model = functional(encoder, inputs)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_close(clone(inputs), model(inputs), 1e-6)
    other = clone.layers[-1]
    assert [b.name for b in other.blocks] == [b.name for b in encoder.blocks]
    before = [v.numpy() for v in variables_of(encoder)]
    for variable in other.trainable_variables:
        variable.assign(variable + 1)
    for variable, value in zip(variables_of(encoder), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    gradients = gradients_of(
        lambda: clone(inputs), [v.value for v in other.trainable_variables]
    )
    assert all(gradient is not None for gradient in gradients)


def test_the_config_has_the_trained_blocks(opened):
    encoder = opened("keras2")
    tlkit.freeze(encoder, train=["conv3.1"], batch_norm="train")
    copy = type(encoder).from_config(encoder.get_config())
    assert copy.batch_norm == "train"
    names = [v.path.split("/", 1)[1] for v in copy.trainable_variables]
    assert names == [v.path.split("/", 1)[1] for v in encoder.trainable_variables]
    assert 0 < len(names) < len(copy.blocks[-1].learnable)


@pytest.mark.parametrize("name", ["jax", "while"])
def test_the_error_of_an_encoder_not_opened_says_how_to_save(opened, tmp_path, name):
    model = functional(opened(name), FORMS[name].examples())
    with pytest.raises(tlkit.errors.EncoderError, match="save_weights") as caught:
        model.save(tmp_path / "model.keras")
    assert FORMS[name].opened in str(caught.value)


def test_a_table_cannot_be_saved(opened, tmp_path):
    model = functional(opened("table"), FORMS["table"].examples())
    with pytest.raises(tlkit.errors.EncoderError, match="lookup table"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")
