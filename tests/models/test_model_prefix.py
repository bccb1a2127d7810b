"""Prefix and remainder compute the same as the whole model, which can be saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.models.model_prefix import (
    FEATURES,
    can_cut,
    encoder_to_cut,
    prefix_function,
    remainder_of,
)


def image_model(folder):
    source = write_image_encoder(folder)
    model = tlkit.image_classifier(source, ["a", "b"], image_size=8)
    return model, tf.random.stateless_uniform((3, 8, 8, 3), (1, 2), 0, 255)


def text_model(folder, pooling="mean"):
    source = write_text_encoder(folder)
    model = tlkit.text_classifier(source, ["a", "b"], pooling=pooling)
    return model, models.preprocessing(model)(tf.constant(["good film", "bad", ""]))


MAKERS = {
    "image": image_model,
    "mean": text_model,
    "both": lambda folder: text_model(folder, "both"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_prefix_and_remainder_compute_the_same_as_the_model(kind, tmp_path):
    model, inputs = MAKERS[kind](tmp_path / "encoder")
    dense = model.get_layer("head").dense
    dense.kernel.assign(np.random.default_rng(0).normal(size=dense.kernel.shape))
    expected = model(inputs).numpy()
    sections = range(1, len(encoder_to_cut(model).sections))
    cuts = [cut for cut in (*sections, FEATURES) if can_cut(model, cut)]
    assert len(cuts) >= 2
    for cut, state in zip(cuts, prefix_function(model, cuts)(inputs), strict=True):
        found = remainder_of(model, cut)(state).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(inputs).numpy(), expected)
