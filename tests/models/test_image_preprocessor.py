"""Images are decoded to the same pixels everywhere."""

import numpy as np
import pytest
import tensorflow as tf

from tests.data.image_files import exif, saved, scene, with_exif
from tlkit.models.preprocessors import ImagePreprocessor

RAWS = [
    saved(scene(400, 300), "JPEG"),
    with_exif(saved(scene(300, 200), "JPEG"), exif(8)),
    saved(scene(50, 30).convert("CMYK"), "JPEG"),
    saved(scene(60, 40).convert("RGBA"), "PNG"),
    saved(scene(60, 40), "WEBP"),
    saved(scene(60, 40), "GIF"),
    saved(scene(60, 40).quantize(9), "BMP"),
]
WINDOW = (0.25, 0.125, 0.5, 0.5)


class _Served(tf.Module):
    """What an exported model does with its examples."""

    def __init__(self, preprocess):
        super().__init__()
        self.preprocess = preprocess

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, raws):
        return self.preprocess.batch(raws)


def test_training_and_serving_decode_alike(tmp_path):
    preprocess = ImagePreprocessor(24, 32)
    dataset = tf.data.Dataset.from_tensor_slices(RAWS).map(preprocess, 2)
    assert dataset.element_spec == tf.TensorSpec([24, 32, 3], tf.float32)
    trained = np.stack(list(dataset.as_numpy_iterator()))
    tf.saved_model.save(_Served(preprocess), str(tmp_path))
    served = tf.saved_model.load(str(tmp_path))(tf.constant(RAWS))
    np.testing.assert_array_equal(served, trained)
    eager = np.stack([preprocess(tf.constant(raw)) for raw in RAWS])
    np.testing.assert_array_equal(eager, trained)
    assert trained.min() >= 0 and trained.max() <= 255


@pytest.mark.parametrize(
    "raw",
    [
        saved(scene(400, 300), "JPEG"),
        saved(scene(400, 300).convert("CMYK"), "JPEG", progressive=True),
        with_exif(saved(scene(300, 400), "JPEG"), exif(8)),
        saved(scene(400, 300).convert("RGBA"), "PNG"),
    ],
    ids=["JPEG", "CMYK", "turned", "PNG"],
)
def test_a_part_is_decoded_as_a_part_of_the_whole(raw):
    whole = ImagePreprocessor(300, 400)(raw)
    expected = tf.image.resize(whole[75:225, 50:250], (20, 30), antialias=True)
    found = ImagePreprocessor(20, 30).cropped(raw, WINDOW)
    assert found.shape == (20, 30, 3)
    assert np.abs(found - expected).mean() < 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_a_part_of_an_array(dtype):
    array = np.asarray(scene(40, 24)).astype(dtype)
    preprocess = ImagePreprocessor(12, 20)
    found = preprocess.cropped(tf.constant(array), WINDOW)
    np.testing.assert_array_equal(found, array[6:18, 5:25])
    np.testing.assert_array_equal(
        preprocess(tf.constant(array)),
        tf.image.resize(array.astype("float32"), (12, 20), antialias=True),
    )


def test_parts_are_chosen_per_example_in_a_dataset():
    windows = np.float32([(0, 0, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)])
    preprocess = ImagePreprocessor(8, 8)
    raws = tf.constant([RAWS[0]] * 2)
    dataset = tf.data.Dataset.from_tensor_slices((raws, windows))
    found = list(dataset.map(preprocess.cropped).as_numpy_iterator())
    for image, window in zip(found, windows, strict=True):
        np.testing.assert_array_equal(image, preprocess.cropped(raws[0], window))
    assert np.abs(found[0] - found[1]).mean() > 5
