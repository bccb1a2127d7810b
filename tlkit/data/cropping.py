"""Parts of pictures, and pictures of a size."""

from __future__ import annotations

import tensorflow as tf


def crop(image: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
    """Takes a part of a picture.

    Args:
        image: `[h, w, channels]`.
        window: float32 `[4]`: `(y, x, height, width)` in shares of the picture, in 0…1.
            `None` takes all.
    """
    if window is None:
        return image
    y, x, height, width = tf.unstack(in_pixels(window, tf.shape(image)[:2]))
    return image[y : y + height, x : x + width]


def in_pixels(window: tf.Tensor, sides: tf.Tensor) -> tf.Tensor:
    """A window in pixels: inside the picture, and never empty.

    Args:
        window: float32 `[4]`: `(y, x, height, width)` in shares of the picture.
        sides: int32 `[2]`: the picture's height and width.

    Returns:
        int32 `[4]`, likewise, in pixels.
    """
    scale = tf.cast(sides, tf.float32)
    begin = tf.cast(tf.round(window[:2] * scale), tf.int32)
    begin = tf.clip_by_value(begin, 0, sides - 1)
    end = tf.cast(tf.round((window[:2] + window[2:]) * scale), tf.int32)
    return tf.concat([begin, tf.clip_by_value(end, begin + 1, sides) - begin], axis=0)


def resize(
    image: tf.Tensor,
    size: tuple[int, int] | tf.Tensor,
    begin: tf.Tensor | None = None,
    extent: tf.Tensor | None = None,
) -> tf.Tensor:
    """Makes a picture of a size, bilinear and antialiased as `tf.image.resize` does it.

    Args:
        image: `[h, w, channels]`; uint16 in 0…65535, any other dtype in 0…255.
        size: Height and width.
        begin: float32 `[2]`: `(y, x)` of the part to take, in pixels; `None` for 0.
        extent: float32 `[2]`: its height and width, in pixels; `None` for all.

    Returns:
        float32 `[height, width, channels]` in 0…255.
    """
    if extent is None:
        begin, extent = tf.zeros([2]), tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.cast(size, tf.float32) / extent
    # Antialiased, or a large picture becomes noise where it is made small. Integers go
    # in as they are: as floats a large picture would take four times as much memory.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=size,
        scale=scale,
        translation=-begin * scale,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return resized / 257 if image.dtype == tf.uint16 else resized
