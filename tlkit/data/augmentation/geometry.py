"""What moves the pixels of a picture: windows, flips and projections."""

from __future__ import annotations

import math

import tensorflow as tf

from ..images.resize import resize
from .example_seeds import part_seed, uniform

GRAY = 128.0  # what comes in from outside of a picture


def draw_window(
    seed: tf.Tensor,
    *,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tf.Tensor:
    """Draws a window of a picture: its area evenly, then its aspect, then its place.

    This is the crop of "Going deeper with convolutions" (arXiv 1409.4842). Others draw
    area and aspect, and again if that does not fit; here the aspect is drawn from what
    fits, so that areas come out as they were asked for. In a picture so narrow that no
    such aspect fits the window has the aspect that comes nearest.

    Args:
        seed: Int32 or int64 `[2]`.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        area: The least and the largest share of the picture's area, in (0, 1].
        aspect: The least and the largest width over height of the window, in pixels.

    Returns:
        Float32 `[4]`: top, left, height and width, as shares of the picture's.
    """
    draws = tf.unstack(uniform(seed, (4,)))
    logarithm = lambda value: tf.math.log(tf.cast(value, tf.float32))
    own = logarithm(width) - logarithm(height)
    size = logarithm(area[0] + draws[0] * (area[1] - area[0]))
    # With this aspect the window is as wide as the picture, or as high.
    highest, widest = own + size, own - size
    least, most = (tf.constant(math.log(value), tf.float32) for value in aspect)
    least, most = (
        tf.minimum(tf.maximum(least, highest), widest),
        tf.maximum(tf.minimum(most, widest), highest),
    )
    shape = least + draws[1] * (most - least)
    high = tf.minimum(tf.exp((size + own - shape) / 2), 1.0)
    wide = tf.minimum(tf.exp((size - own + shape) / 2), 1.0)
    return tf.stack([draws[2] * (1 - high), draws[3] * (1 - wide), high, wide])


def crop(pixels: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Takes a window out and makes it as large as the picture was.

    Args:
        pixels: Float32 `[height, width, channels]`.
        window: Float32 `[4]`: top, left, height and width, as shares of the picture's.

    Returns:
        Float32 of the same shape. A window need not begin at a whole pixel.
    """
    size = tf.shape(pixels)[:2]
    begin, extent = (part * tf.cast(size, tf.float32) for part in tf.split(window, 2))
    return tf.ensure_shape(resize(pixels, size, begin, extent), pixels.shape)


def random_flip(pixels: tf.Tensor, seed: tf.Tensor, *, direction: str) -> tf.Tensor:
    """Mirrors every second picture.

    Args:
        pixels: Float32 `[height, width, channels]`.
        seed: Int32 or int64 `[2]`.
        direction: `"horizontal"` exchanges left and right, `"vertical"` top and bottom;
            with `"both"` each of the two is drawn by itself.

    Returns:
        Float32 of the same shape.
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
    """Fills a window of some pictures with noise.

    "Random erasing data augmentation" (arXiv 1708.04896), with its sizes, and a random
    value for every pixel and channel, which did best there.

    Args:
        pixels: Float32 `[height, width, channels]` in 0…255.
        seed: Int32 or int64 `[2]`.
        probability: Of a picture being touched at all, in [0, 1].
        area: The least and the largest share of the picture that is erased.
        aspect: The least and the largest width over height of what is erased.

    Returns:
        Float32 of the same shape.
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
        touched = uniform(part_seed(seed, 0)) < probability
        found = tf.cond(touched, erased, lambda: pixels)
    else:
        found = erased()
    return tf.ensure_shape(found, pixels.shape)


def project(pixels: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Takes every pixel from another place.

    Args:
        pixels: Float32 `[height, width, channels]`.
        matrix: Float32 `[2, 3]`. The pixel at `(x, y)`, in pixels from the middle of
            the picture to the right and down, comes from `matrix @ (x, y, 1)`, where
            the last column is in shares of the width and height.

    Returns:
        Float32 of the same shape; what comes in from outside is gray.
    """
    size = tf.shape(pixels)[:2]
    length = tf.cast(size, tf.float32)[::-1]  # as the op has it: x before y
    middle = (length - 1) / 2
    turn = matrix[:, :2]
    start = middle - tf.linalg.matvec(turn, middle) + matrix[:, 2] * length
    whole = tf.concat([turn, start[:, tf.newaxis]], axis=1)
    found = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels[tf.newaxis],
        transforms=tf.concat([tf.reshape(whole, (1, 6)), tf.zeros((1, 2))], axis=1),
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=GRAY,
    )[0]
    return tf.ensure_shape(found, pixels.shape)
