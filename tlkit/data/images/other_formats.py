"""What the first bytes of an encoded picture say, read with TensorFlow's ops.

Only ops, and few of them: the same code runs in tf.data, which takes a third of a
second for a thousand ops whenever an epoch begins, and inside an exported SavedModel.
"""

from __future__ import annotations

import tensorflow as tf

# Of what is decoded whole, in pixels: a square of 16,384. Three bytes each, and
# several pictures at a time.
MOST_PIXELS = 2**28
_BYTES = 64


def first_bytes(raw: tf.Tensor) -> tf.Tensor:
    """The first 64 bytes, and zeros after what is shorter, as a string."""
    return tf.strings.join([tf.strings.substr(raw, 0, _BYTES), b"\0" * _BYTES])


def begins(header: tf.Tensor, magic: bytes, *, at: int = 0) -> tf.Tensor:
    """Whether these bytes stand at a place in the first ones, as a bool scalar."""
    return tf.equal(tf.strings.substr(header, at, len(magic)), magic)


def numbers(
    header: tf.Tensor,
    at: int,
    count: int = 1,
    dtype: tf.DType = tf.int32,
    *,
    little: bool = True,
) -> tf.Tensor:
    """Reads integers out of the first bytes.

    Args:
        header: The first bytes.
        at: Where the first number begins.
        count: How many there are.
        dtype: What they are.
        little: Whether the lowest byte comes first.

    Returns:
        int32 `[count]`.
    """
    found = tf.strings.substr(header, at, count * dtype.size)
    return tf.cast(tf.io.decode_raw(found, dtype, little_endian=little), tf.int32)


def refuse_enormous(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Gives the picture back unless decoding it whole would take too much memory.

    The header says its size, so nothing of it has been decoded by then. A WebP has at
    most 16,383 pixels on a side and always passes; so does a GIF here (see `gifs.py`).

    Args:
        raw: A string with an encoded PNG, BMP or anything else.
        header: Its first bytes.

    Returns:
        The same string.

    Raises:
        tf.errors.InvalidArgumentError: It has more than 2²⁸ pixels.
    """
    kinds = [begins(header, magic) for magic in (b"\x89PNG", b"BM")]
    sides = [
        numbers(header, 16, 2, little=False),
        # A negative height means that rows go from the top to the bottom.
        tf.abs(numbers(header, 18, 2)),
    ]
    sides = tf.reduce_sum(tf.where(tf.stack(kinds)[:, tf.newaxis], sides, 0), axis=0)
    return refuse_unless(_fits(sides), raw, sides[0], sides[1])


def png_fits(header: tf.Tensor) -> tf.Tensor:
    """Whether `refuse_enormous` lets a PNG pass, by its first bytes."""
    return _fits(numbers(header, 16, 2, little=False))


def _fits(sides: tf.Tensor) -> tf.Tensor:
    # As floats: the product of two such numbers does not fit in 32 bits.
    return tf.reduce_prod(tf.cast(sides, tf.float32)) <= MOST_PIXELS


def refuse_unless(
    fits: tf.Tensor, raw: tf.Tensor, width: tf.Tensor, height: tf.Tensor
) -> tf.Tensor:
    """Gives the picture back if it fits into memory."""
    most = f"pixels. At most {MOST_PIXELS:,} pixels are decoded, of a JPEG after it is "
    most += "made smaller. Make it smaller."
    return checked(raw, fits, "The picture is too large:", width, "by", height, most)


def checked(raw: tf.Tensor, passes: tf.Tensor, *message: tf.Tensor | str) -> tf.Tensor:
    """Gives a tensor back if it passes; an InvalidArgumentError with a message else.

    In the error every part of the message stands in brackets.
    """
    # tf.debugging.Assert has another text where it runs eagerly.
    check = tf.raw_ops.Assert(condition=passes, data=list(message), summarize=1)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(raw)
