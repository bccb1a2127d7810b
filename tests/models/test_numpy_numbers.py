"""NumPy's numbers are numbers wherever a model or its data takes a size or a count."""

import json

import numpy as np
import pytest

import tlkit
from tests.tiny import write_image_encoder
from tlkit.errors import DataError, EncoderError
from tlkit.models.text.packer import Packing


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "1")


def test_sizes_and_counts_of_models_may_be_numpy_integers(encoder):
    size = np.int64(8)
    model = tlkit.image_classifier(encoder, np.int32(3), image_size=(size, size))
    assert model.input_shape == (None, 8, 8, 3) and model.output_shape == (None, 3)
    assert type(model.input_shape[1]) is int
    json.loads(model.to_json())
    tlkit.freeze(model, train=np.int64(0))
    packing = Packing(length=np.int64(16), windows=np.int64(2), overlap=np.int64(4))
    assert all(type(n) is int for n in (packing.length, *packing.lengths))
    assert tlkit.image_classifier(encoder, 2, image_size=size).input_shape[1] == 8


def test_numbers_of_an_augmentation_may_be_numpy_s():
    augmentation = tlkit.data.Augmentation(
        rand_augment=(np.int64(2), np.float32(9)), color=np.float32(0.25)
    )
    assert augmentation.rand_augment == (2, 9.0) and augmentation.color.contrast == 0.25


@pytest.mark.parametrize("image_size", ["96", 0, (8, 8, 3), 9.5, (8, None)])
def test_other_sizes_are_named(encoder, image_size):
    with pytest.raises(EncoderError, match="image_size must be a number of pixels"):
        tlkit.image_classifier(encoder, 3, image_size=image_size)


def test_another_number_of_labels_is_named(encoder):
    with pytest.raises(DataError, match="labels must be the names"):
        tlkit.image_classifier(encoder, 2.5)
