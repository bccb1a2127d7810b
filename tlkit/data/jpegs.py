"""JPEGs, decoded no larger than they have to be."""

from __future__ import annotations

import tensorflow as tf

from .cropping import in_pixels, resize
from .headers import MOST_PIXELS, checked, number, too_large

# By what the sides may be divided. A half is a fourth of the work, save for reading the
# data; it does not alias, since frequencies are left out.
_RATIOS = (1, 2, 4, 8)
# A picture is decoded at this many times the size at least, and then resized. Against
# resizing it whole, a sharp photograph differs by 1.7 of 255 on average; at twice the
# size by 0.8, for three times the work; at the very size by 3, and is too sharp.
_RESERVE = 1.25
# TensorFlow refuses more, in pixels times channels, and says that the data is invalid.
_MOST_VALUES = 2**29
_LOOKED_AT = 2**22  # bytes, for the header of the frame in an enormous picture
_PROGRESSIVE = (0xFF, 0xC2)


def decode_jpeg(
    raw: tf.Tensor, size: tf.Tensor, window: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes a JPEG, or a window of it, at a size.

    Args:
        raw: A scalar string.
        size: int32 `[2]`: height and width.
        window: float32 `[4]`: `(y, x, height, width)` of the part to take, in shares of
            the stored picture. Little more than it is decoded.

    Returns:
        float32 `[height, width, 3]` in 0…255, as it is stored: not turned as its EXIF
        orientation says.

    Raises:
        tf.errors.InvalidArgumentError: It is broken or too large.
    """
    pixels, begin, extent = reduced(raw, size, window)
    return resize(pixels, size, begin, extent)


def reduced(
    raw: tf.Tensor, size: tf.Tensor, window: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a JPEG no larger than is needed for a size. Arguments as above.

    Returns:
        The pixels, uint8 `[h, w, 3]`, and the beginning and extent of the window in
        them, each float32 `[2]`. Neither is a whole number: a side of 427 pixels is one
        of 53.4 at an eighth, which has 54 pixels.
    """
    shape = tf.io.extract_jpeg_shape(raw)
    raw = _refuse_enormous(raw, shape)
    if window is None:
        area = tf.concat([[0, 0], shape[:2]], axis=0)
    else:
        area = in_pixels(window, shape[:2])
    needed = _RESERVE * tf.cast(size, tf.float32)
    ratios = tf.constant(_RATIOS[1:], tf.float32)[:, tf.newaxis]
    enough = tf.cast(area[2:], tf.float32) >= ratios * needed
    # Where a ratio is possible all smaller ones are, so their number is its index.
    index = tf.reduce_sum(tf.cast(tf.reduce_all(enough, axis=1), tf.int32))
    part = None if window is None else area
    pixels = tf.switch_case(
        index, [lambda r=ratio: _decode_at(raw, shape, r, part) for ratio in _RATIOS]
    )
    ratio = tf.gather(_RATIOS, index)
    begin = tf.cast(area[:2] % ratio, tf.float32) / tf.cast(ratio, tf.float32)
    return pixels, begin, tf.cast(area[2:], tf.float32) / tf.cast(ratio, tf.float32)


def _decode_at(
    raw: tf.Tensor, shape: tf.Tensor, ratio: int, area: tf.Tensor | None
) -> tf.Tensor:
    """Decodes at one ratio, of an area `(y, x, height, width)` all that it touches."""
    sides = -(-shape[:2] // ratio)
    values = tf.reduce_prod(tf.cast(sides, tf.float32)) * tf.cast(shape[2], tf.float32)
    raw = checked(raw, values < _MOST_VALUES, too_large(shape[:2]))
    # TensorFlow's own choice is a faster and coarser transform.
    options = {"channels": 3, "ratio": ratio, "dct_method": "INTEGER_ACCURATE"}
    if area is None:
        return tf.io.decode_jpeg(raw, **options)
    begin, end = area[:2] // ratio, -(-(area[:2] + area[2:]) // ratio)
    window = tf.concat([begin, end - begin], axis=0)
    return tf.io.decode_and_crop_jpeg(raw, window, **options)


def _refuse_enormous(raw: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Refuses a progressive JPEG whose frequencies would take too much memory."""
    # It is kept whole, whatever the ratio, until its last scan has been read.
    pixels = tf.reduce_prod(tf.cast(shape[:2], tf.float32))
    fits = tf.cond(
        pixels <= MOST_PIXELS, lambda: True, lambda: ~_is_progressive(raw, shape)
    )
    return checked(raw, fits, too_large(shape[:2]))


def _is_progressive(raw: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(tf.strings.substr(raw, 0, _LOOKED_AT), tf.uint8)
    marks = (data[:-1] == _PROGRESSIVE[0]) & (data[1:] == _PROGRESSIVE[1])
    # After the mark: two bytes of length, one of precision, height and width.
    places = tf.where(marks)[:, 0] + 5
    sides = [number(data, places + add, 2, little=False) for add in (0, 2)]
    height, width = tf.unstack(tf.cast(shape[:2], tf.int64))
    return tf.reduce_any((sides[0] == height) & (sides[1] == width))
