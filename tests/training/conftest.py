"""Tiny models and data that the tests of this room share."""

import keras
import numpy as np
import pytest

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="session")
def image_encoder(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "1")


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("texts") / "1")


@pytest.fixture
def make_model(image_encoder):
    """Makes a classifier of 8 by 8 pixels; each time with the same weights."""

    def make(**options):
        model = tlkit.image_classifier(image_encoder, LABELS, image_size=8, **options)
        random = np.random.default_rng(5)
        dense = model.get_layer("head").dense
        dense.kernel.assign(random.normal(size=dense.kernel.shape) / 3)
        return model

    return make


@pytest.fixture(scope="session")
def pictures():
    """Thirty pictures, bright in the channel of their class, and their classes."""
    random = np.random.default_rng(0)
    y = np.arange(30) % 3
    x = random.uniform(0, 90, (30, 8, 8, 3))
    x[np.arange(30), :, :, y] += 120
    return x.astype("uint8"), y


@pytest.fixture(scope="session")
def splits(pictures):
    return tlkit.data.arrays(
        *pictures, labels=LABELS, validation=6, test=6, seed=1
    )  # 18 to train on


@pytest.fixture
def plain_model():
    """A Keras model without an encoder, from 4 numbers to 3 logits."""
    return make_plain_model()


def make_plain_model(seed=7):
    random = np.random.default_rng(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2"),
            keras.layers.Dense(3),
        ]
    )
    model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="session")
def numbers():
    """Eleven rows of four numbers, and their classes."""
    random = np.random.default_rng(3)
    x = random.normal(size=(11, 4)).astype("float32")
    return x, random.integers(0, 3, 11)
