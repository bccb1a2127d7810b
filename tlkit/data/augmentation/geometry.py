"""Operations that move the pixels of an image: crops, flips, erasing, projections.

Pixels are float32 `[height, width, channels]` in 0…255; results have the same shape. A
seed is int32 or int64 `[2]`, and a window float32 `[4]`: top, left, height and width as
fractions of the image's height and width.

Tested in tests/data/augmentation/test_augmented_pixels.py.
"""

import math

import tensorflow as tf

from ..images import resize
from .example_seeds import part_seed, uniform

GRAY = 128.0  # the value of pixels from outside of the image


def draw_window(
    seed: tf.Tensor,
    *,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tf.Tensor:
    """Draws a window of an image: its area uniformly, then its aspect and position.

    This is the crop of "Going deeper with convolutions" (arXiv 1409.4842). Other
    implementations draw area and aspect again if the window is larger than the image.
    Here the aspect is drawn only from values that fit, so areas stay uniform. If the
    image is so narrow that no aspect fits, the window has the nearest possible one.

    Args:
        seed: Int32 or int64 `[2]`.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        area: The smallest and the largest fraction of the image's area, in (0, 1].
        aspect: The smallest and the largest width over height of the window, in pixels.
    """
    draws = tf.unstack(uniform(seed, (4,)))
    logarithm = lambda value: tf.math.log(tf.cast(value, tf.float32))
    image_aspect = logarithm(width) - logarithm(height)
    size = logarithm(area[0] + draws[0] * (area[1] - area[0]))
    # Logarithms of the aspects at which the window is as high or wide as the image.
    highest, widest = image_aspect + size, image_aspect - size
    least, most = (tf.constant(math.log(value), tf.float32) for value in aspect)
    least, most = (
        tf.minimum(tf.maximum(least, highest), widest),
        tf.maximum(tf.minimum(most, widest), highest),
    )
    shape = least + draws[1] * (most - least)
    high = tf.minimum(tf.exp((size + image_aspect - shape) / 2), 1.0)
    wide = tf.minimum(tf.exp((size - image_aspect + shape) / 2), 1.0)
    return tf.stack([draws[2] * (1 - high), draws[3] * (1 - wide), high, wide])


def crop(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Crops a window, which need not begin at a whole pixel, and resizes it."""
    size = tf.shape(pixels)[:2]
    begin, extent = (part * tf.cast(size, tf.float32) for part in tf.split(window, 2))
    return tf.ensure_shape(resize(pixels, size, begin, extent), pixels.shape)


def random_flip(pixels: tf.Tensor, seed: tf.Tensor, *, direction: str) -> tf.Tensor:
    """Flips an image with probability 0.5.

    The direction `"horizontal"` exchanges left and right, `"vertical"` top and bottom;
    `"both"` draws each of the two independently.
    """
    if direction != "vertical":
        pixels = tf.image.stateless_random_flip_left_right(pixels, part_seed(seed, 0))
    if direction != "horizontal":
        pixels = tf.image.stateless_random_flip_up_down(pixels, part_seed(seed, 1))
    return pixels


def random_erasing(
    pixels: tf.Tensor,
    seed: tf.Tensor,
    *,
    probability: float,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> tf.Tensor:
    """Replaces a random window of an image by noise, with a given probability.

    This is "Random erasing data augmentation" (arXiv 1708.04896), with the paper's
    sizes. The noise is drawn for every pixel and channel, which worked best in it.

    Args:
        pixels: The image.
        seed: The seed of this operation.
        probability: The probability that an image is changed, in [0, 1].
        area: The smallest and the largest fraction of the image that is erased.
        aspect: The smallest and the largest width over height of the window.
    """

    def erased():
        size = tf.shape(pixels)
        shape = {"height": size[0], "width": size[1]}
        window = draw_window(part_seed(seed, 1), area=area, aspect=aspect, **shape)
        ends = tf.stack([window[:2], window[:2] + window[2:]])
        ends = tf.cast(tf.round(ends * tf.cast(size[:2], tf.float32)), tf.int32)
        top, left, bottom, right = tf.unstack(tf.reshape(ends, (4,)))
        noise = uniform(
            part_seed(seed, 2), (bottom - top, right - left, size[2]), high=255.0
        )
        margins = [[top, size[0] - bottom], [left, size[1] - right], [0, 0]]
        inside = tf.pad(tf.ones_like(noise, tf.bool), margins)
        return tf.where(inside, tf.pad(noise, margins), pixels)

    if probability < 1:
        chosen = uniform(part_seed(seed, 0)) < probability
        changed = tf.cond(chosen, erased, lambda: pixels)
    else:
        changed = erased()
    return tf.ensure_shape(changed, pixels.shape)


def project(pixels: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Applies an affine transformation with bilinear interpolation.

    The matrix is float32 `[2, 3]`. The result's pixel at `(x, y)`, in pixels to the
    right and down from the center, is the image's at `matrix @ (x, y, 1)`, or gray if
    that is outside. The matrix's last column is in fractions of the width and height.
    """
    size = tf.shape(pixels)[:2]
    length = tf.cast(size, tf.float32)[::-1]  # x before y, as in the op
    center = (length - 1) / 2
    linear = matrix[:, :2]
    start = center - tf.linalg.matvec(linear, center) + matrix[:, 2] * length
    affine = tf.concat([linear, start[:, tf.newaxis]], axis=1)
    projected = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[tf.newaxis],
        transforms=tf.concat([tf.reshape(affine, (1, 6)), tf.zeros((1, 2))], axis=1),
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=GRAY,
    )[0]
    return tf.ensure_shape(projected, pixels.shape)
