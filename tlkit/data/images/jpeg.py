"""JPEGs, decoded no larger than they have to be."""

from __future__ import annotations

import tensorflow as tf

from .other_formats import MOST_PIXELS, refuse_unless
from .resize import in_pixels, resize

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
_PROGRESSIVE = 0xFFC2


def decode_jpeg(
    raw: tf.Tensor,
    size: tf.Tensor,
    window: tf.Tensor | None = None,
    *,
    fits: bool = False,
) -> tf.Tensor:
    """Decodes a JPEG, or a window of it, at a size.

    Args:
        raw: A scalar string.
        size: int32 `[2]`: height and width.
        window: float32 `[4]`: `(y, x, height, width)` of the part to take, in shares of
            the stored picture. Little more than it is decoded.
        fits: Whether `fits_whole` is known to be true of it.

    Returns:
        float32 `[height, width, 3]` in 0…255, as it is stored: not turned as its EXIF
        orientation says.

    Raises:
        tf.errors.InvalidArgumentError: It is broken or too large.
    """
    pixels, begin, extent = reduced(raw, size, window, fits=fits)
    return resize(pixels, size, begin, extent)


def reduced(
    raw: tf.Tensor,
    size: tf.Tensor,
    window: tf.Tensor | None = None,
    *,
    fits: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a JPEG no larger than is needed for a size. Arguments as above.

    Returns:
        The pixels, uint8 `[h, w, 3]`, and the beginning and extent of the window in
        them, each float32 `[2]`. Neither is a whole number: a side of 427 pixels is one
        of 53.4 at an eighth, which has 54 pixels.
    """
    shape = tf.io.extract_jpeg_shape(raw)
    origin, sides = None, shape[:2]
    if window is not None:
        origin, sides = tf.split(in_pixels(window, sides), 2)
    needed = _RESERVE * tf.cast(size, tf.float32)
    ratios = tf.constant([[ratio] for ratio in _RATIOS[1:]], tf.float32)
    enough = tf.cast(sides, tf.float32) >= ratios * needed
    # Where a ratio is possible all smaller ones are, so their number is its index.
    index = tf.reduce_sum(tf.cast(tf.reduce_all(enough, axis=1), tf.int32))
    ratio = tf.gather(_RATIOS, index)
    if not fits:
        raw = refuse_unless(_fits(raw, shape, ratio), raw, shape[1], shape[0])
    begin, part, scale = tf.zeros([2]), None, tf.cast(ratio, tf.float32)
    if window is not None:
        first, end = origin // ratio, -(-(origin + sides) // ratio)
        part = tf.concat([first, end - first], axis=0)
        begin = tf.cast(origin, tf.float32) / scale - tf.cast(first, tf.float32)
    pixels = tf.switch_case(
        index, [lambda r=ratio: _decode_at(raw, r, part) for ratio in _RATIOS]
    )
    return pixels, begin, tf.cast(sides, tf.float32) / scale


def _decode_at(raw: tf.Tensor, ratio: int, part: tf.Tensor | None) -> tf.Tensor:
    """Decodes at one ratio, all or a part `(y, x, height, width)` in its pixels."""
    # TensorFlow's own choice is a faster and coarser transform.
    options = {"channels": 3, "ratio": ratio, "dct_method": "INTEGER_ACCURATE"}
    if part is None:
        return tf.io.decode_jpeg(raw, **options)
    return tf.io.decode_and_crop_jpeg(raw, part, **options)


def fits_whole(raw: tf.Tensor) -> tf.Tensor:
    """Whether there is memory for a JPEG, at whatever ratio."""
    return _values(tf.io.extract_jpeg_shape(raw)) < min(MOST_PIXELS, _MOST_VALUES)


def _values(shape: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(shape, tf.float32))


def _fits(raw: tf.Tensor, shape: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    """Whether there is memory for a JPEG of a shape, decoded at a ratio."""
    values = _values(shape)
    # Of a progressive one all frequencies are kept, whatever the ratio, until its last
    # scan has been read.
    return tf.cond(
        values < min(MOST_PIXELS, _MOST_VALUES),
        lambda: True,
        lambda: (
            (values / tf.cast(ratio**2, tf.float32) < _MOST_VALUES)
            & ~_is_progressive(raw, shape)
        ),
    )


def _is_progressive(raw: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    data = tf.cast(
        tf.io.decode_raw(tf.strings.substr(raw, 0, _LOOKED_AT), tf.uint8), tf.int32
    )
    sides = 256 * data[:-1] + data[1:]
    # After the mark: two bytes of length, one of precision, height and width.
    found = (sides[:-7] == _PROGRESSIVE) & (sides[5:-2] == shape[0])
    return tf.reduce_any(found & (sides[7:] == shape[1]))
