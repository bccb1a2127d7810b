"""What the first bytes of an encoded picture say, read with TensorFlow's ops.

Only ops: the same code runs in tf.data and inside an exported SavedModel.
"""

from __future__ import annotations

import tensorflow as tf

# Of what is decoded whole, in pixels: a square of 16,384. Three bytes each, and
# several pictures at a time.
MOST_PIXELS = 2**28
_BYTES = 64


def first_bytes(raw: tf.Tensor) -> tf.Tensor:
    """The first 64 bytes, uint8 `[64]`; zeros follow what is shorter."""
    start = tf.strings.join([tf.strings.substr(raw, 0, _BYTES), b"\0" * _BYTES])
    return tf.io.decode_raw(start, tf.uint8)[:_BYTES]


def number(
    data: tf.Tensor, position: int | tf.Tensor, length: int, *, little: bool | tf.Tensor
) -> tf.Tensor:
    """Reads unsigned integers out of bytes.

    Args:
        data: uint8 `[n]`, not empty. Past its end the last byte is read again.
        position: Where a number begins; an integer, or a tensor of any shape.
        length: Bytes of a number, up to 4.
        little: Whether the lowest byte comes first.

    Returns:
        int64 of the shape of `position`.
    """
    position = tf.cast(position, tf.int64)
    places = position[..., tf.newaxis] + tf.range(length, dtype=tf.int64)
    last = tf.size(data, out_type=tf.int64) - 1
    digits = tf.cast(tf.gather(data, tf.clip_by_value(places, 0, last)), tf.int64)
    weights = tf.constant([256**power for power in range(length)], tf.int64)
    weights = tf.where(little, weights, weights[::-1])
    return tf.reduce_sum(digits * weights, axis=-1)


def begins(header: tf.Tensor, magic: bytes, *, at: int = 0) -> tf.Tensor:
    """Whether these bytes stand at a place in the first ones, as a bool scalar."""
    found = header[at : at + len(magic)]
    return tf.reduce_all(tf.equal(found, tf.constant(list(magic), tf.uint8)))


def refuse_enormous(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Gives the picture back unless decoding it whole would take too much memory.

    The header says its size, so nothing of it has been decoded by then. A WebP has at
    most 16,383 pixels on a side and always passes.

    Args:
        raw: A string with an encoded PNG, GIF, BMP or anything else.
        header: Its first bytes.

    Returns:
        The same string.

    Raises:
        tf.errors.InvalidArgumentError: It has more than 2²⁸ pixels.
    """
    kinds = [begins(header, magic) for magic in (b"\x89PNG", b"GIF8", b"BM")]
    sides = tf.stack([_png_sides(header), _gif_sides(header), _bmp_sides(header)])
    chosen = tf.cast(tf.stack(kinds), tf.int64)[:, tf.newaxis]
    sides = tf.reduce_sum(sides * chosen, axis=0)
    # As floats: the product of two such numbers does not fit in 64 bits with a sign.
    pixels = tf.reduce_prod(tf.cast(sides, tf.float64))
    return checked(raw, pixels <= MOST_PIXELS, too_large(sides))


def too_large(sides: tf.Tensor) -> tf.Tensor:
    """What to say about a picture with a height and width, `[2]`."""
    height, width = tf.unstack(tf.strings.as_string(sides))
    most = f"pixels. At most {MOST_PIXELS:,} pixels are decoded, of a JPEG after it is "
    parts = ["The picture is too large:", width, "by", height, most]
    return tf.strings.join([*parts[:-1], most + "made smaller. Make it smaller."], " ")


def _png_sides(header: tf.Tensor) -> tf.Tensor:
    return tf.reverse(number(header, tf.constant([16, 20]), 4, little=False), [0])


def _gif_sides(header: tf.Tensor) -> tf.Tensor:
    return tf.reverse(number(header, tf.constant([6, 8]), 2, little=True), [0])


def _bmp_sides(header: tf.Tensor) -> tf.Tensor:
    sides = number(header, tf.constant([22, 18]), 4, little=True)
    # A negative height means that rows go from the top to the bottom.
    return tf.minimum(sides, 2**32 - sides)


def checked(raw: tf.Tensor, passes: tf.Tensor, message: tf.Tensor | str) -> tf.Tensor:
    """Gives a tensor back if it passes; an InvalidArgumentError with a message else."""
    # tf.debugging.Assert has another text where it runs eagerly.
    check = tf.raw_ops.Assert(condition=passes, data=[message], summarize=1)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(raw)
