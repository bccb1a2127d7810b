"""BMP pictures, with their palettes."""

from __future__ import annotations

import tensorflow as tf

from .other_formats import checked, first_bytes, numbers

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
    compression = numbers(header, 30)[0]
    plain = (compression == _PLAIN) | (compression == _MASKED)
    message = "A BMP that is compressed cannot be decoded. Save it as a PNG."
    image = tf.io.decode_bmp(checked(raw, plain, message), channels=3)
    has_palette = tf.equal(numbers(header, 28, 1, tf.uint16)[0], 8)
    return tf.cond(
        has_palette,
        lambda: tf.gather(_palette(raw, header), tf.cast(image[..., 0], tf.int32)),
        lambda: image,
    )


def _palette(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """uint8 `[256, 3]`; entries that the file does not have are shades of gray."""
    begin = _FILE_HEADER + numbers(header, 14)[0]
    end = numbers(header, 10)[0]
    count = tf.clip_by_value((end - begin) // 4, 0, 256)
    entries = tf.strings.substr(raw, begin, 4 * count)
    entries = tf.reshape(tf.io.decode_raw(entries, tf.uint8), [-1, 4])
    shades = tf.constant([[shade] * 3 for shade in range(256)], tf.uint8)
    # Entries are blue, green, red and nothing.
    return tf.concat([entries[:, 2::-1], shades[count:]], axis=0)
