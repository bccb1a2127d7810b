"""BMP pictures, with their palettes."""

from __future__ import annotations

import tensorflow as tf

from .headers import checked, first_bytes, number

_FILE_HEADER = 14  # bytes
_PLAIN, _MASKED = 0, 3  # kinds of compression; the others are run lengths and files


def decode_bitmap(raw: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP of 8, 24 or 32 bits a pixel.

    TensorFlow's own op takes the indices into a palette for shades of gray, and what is
    compressed for plain pixels.

    Args:
        raw: A scalar string.

    Returns:
        uint8 `[h, w, 3]`.

    Raises:
        tf.errors.InvalidArgumentError: It is broken, compressed, or of other bits.
    """
    header = first_bytes(raw)
    compression = number(header, 30, 4, little=True)
    plain = tf.equal(compression, _PLAIN) | tf.equal(compression, _MASKED)
    message = "A BMP that is compressed cannot be decoded. Save it as a PNG."
    raw = checked(raw, plain, message)
    image = tf.io.decode_bmp(raw, channels=3)
    with_palette = tf.equal(number(header, 28, 2, little=True), 8)
    return tf.cond(
        with_palette,
        lambda: tf.gather(_palette(raw, header), tf.cast(image[..., 0], tf.int32)),
        lambda: image,
    )


def _palette(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """uint8 `[256, 3]`; entries that the file does not have are shades of gray."""
    begin = _FILE_HEADER + number(header, 14, 4, little=True)
    end = number(header, 10, 4, little=True)
    count = tf.cast(tf.clip_by_value((end - begin) // 4, 0, 256), tf.int32)
    entries = tf.strings.substr(raw, tf.cast(begin, tf.int32), 4 * count)
    entries = tf.reshape(tf.io.decode_raw(entries, tf.uint8), [-1, 4])
    shades = tf.repeat(tf.range(256)[:, tf.newaxis], 3, axis=1)
    # Entries are blue, green, red and nothing.
    return tf.concat([entries[:, 2::-1], tf.cast(shades, tf.uint8)[count:]], axis=0)
