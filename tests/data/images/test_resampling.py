"""Resized images, bit for bit as TensorFlow's op resizes them."""

import numpy as np
import pytest
import tensorflow as tf

from tlkit.data.images import resize


def by_the_op(image, size, begin=(0, 0), extent=None):
    """Rows and columns in one call, as `tf.image.resize` has them."""
    scale = np.float32(size) / np.float32(extent or image.shape[:2])
    return tf.raw_ops.ScaleAndTranslate(
        images=image[np.newaxis],
        size=size,
        scale=scale,
        translation=-np.float32(begin) * scale,
        kernel_type="triangle",
        antialias=True,
    )[0]


@pytest.mark.parametrize("size", [(20, 30), (90, 7), (41, 53), (1, 1), (128, 128)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_rows_and_columns_apart_are_the_same_to_the_bit(size, dtype, channels):
    values = np.random.default_rng(0).integers(0, 256, (41, 53, channels))
    image = values.astype(dtype)
    found = resize(tf.constant(image), size)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, by_the_op(image, size))
    np.testing.assert_array_equal(
        found, tf.image.resize(image, size, antialias=True), strict=True
    )


def test_a_part_is_the_same_to_the_bit():
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3)).astype(np.uint8)
    begin, extent = (3.5, 7.25), (20.4, 31.9)
    found = resize(tf.constant(image), (24, 16), tf.constant(begin), extent)
    np.testing.assert_array_equal(found, by_the_op(image, (24, 16), begin, extent))


def test_sizes_may_be_unknown_until_it_runs():
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3)).astype(np.uint8)
    unknown = tf.TensorSpec((None, None, None), tf.uint8)
    run = tf.function(resize, input_signature=[unknown, tf.TensorSpec([2], tf.int32)])
    found = run(image, np.int32([9, 13]))
    np.testing.assert_array_equal(found, by_the_op(image, (9, 13)))


def test_sixteen_bits_become_eight():
    image = np.full((6, 5, 3), 257 * 90, np.uint16)
    for size in ((6, 5), (3, 3)):
        np.testing.assert_allclose(resize(tf.constant(image), size), 90, rtol=1e-6)
