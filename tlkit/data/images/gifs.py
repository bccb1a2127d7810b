"""GIFs, of which all frames are decoded to get at the first one."""

from __future__ import annotations

import tensorflow as tf

from .other_formats import MOST_PIXELS, checked

# Bytes before the palette that all frames share, and before that of one frame.
_SCREEN, _HEADER = 13, 10
_EXTENSION, _FRAME = 0x21, 0x2C
# Data comes in blocks of up to 255 bytes, with their length in front. Long frames are
# passed over this many blocks at a time.
_BLOCK, _BLOCKS = 256, 16
# A step takes some 20 microseconds. Large files are nearly all of full blocks.
_FEW_STEPS, _BYTES_A_STEP = 10_000, 64


def decode_gif(raw: tf.Tensor) -> tf.Tensor:
    """Decodes the first frame of a GIF.

    Args:
        raw: A scalar string.

    Returns:
        uint8 `[h, w, 3]`, of the frame's size and not of the screen's.

    Raises:
        tf.errors.InvalidArgumentError: It is broken, or all frames together have more
            than 2²⁸ pixels: TensorFlow decodes them all, and each says its own size,
            whatever the screen's is.
    """
    pixels, ends = frame_pixels(raw)
    millions = tf.cast(pixels / 1e6, tf.int32)
    message = (
        f"million pixels. At most {MOST_PIXELS // 10**6} million are decoded. Save its "
        "first frame alone, or make it smaller."
    )
    what = "The GIF is in too many pieces, or too large: its frames together have"
    raw = checked(raw, ends & (pixels <= MOST_PIXELS), what, millions, message)
    return tf.io.decode_image(raw, channels=3, expand_animations=False)


def frame_pixels(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts the pixels of all frames.

    Args:
        raw: A scalar string. Of what is not a GIF the count means nothing.

    Returns:
        How many there are, a float32 scalar, and whether the end was come to: a file
        made of tiny blocks would take minutes, and nobody's program makes one.
    """
    most_steps = _FEW_STEPS + tf.strings.length(raw) // _BYTES_A_STEP
    screen = tf.unstack(_bytes_at(raw, 0)[:_SCREEN])
    place = _SCREEN + _palette_size(screen[10])

    def step(count, place, inside, pixels, _):
        found = _bytes_at(raw, place)
        first, *header = tf.unstack(found[:_HEADER])
        is_frame = tf.equal(first, _FRAME) & ~inside
        pixels += tf.where(is_frame, _area(*header[4:8]), 0)
        # Behind a frame's header stands its palette, one byte more, and then its data.
        after = tf.where(tf.equal(first, _EXTENSION), 2, 0)
        after = tf.where(is_frame, _HEADER + 1 + _palette_size(header[8]), after)
        full = tf.cast(tf.equal(found[::_BLOCK], _BLOCK - 1), tf.int32)
        full = tf.reduce_sum(tf.math.cumprod(full))
        passed = tf.where(full > 0, _BLOCK * full, 1 + first)
        length = tf.where(inside, passed, after)
        inside = tf.where(inside, first > 0, after > 0)
        return count + 1, place + length, inside, pixels, length > 0

    begin = (0, place, tf.constant(False), tf.constant(0.0), tf.constant(True))
    *_, pixels, goes_on = tf.while_loop(
        lambda count, *state: state[-1] & (count < most_steps),
        step,
        begin,
        parallel_iterations=1,
    )
    return pixels, ~goes_on


def _bytes_at(raw: tf.Tensor, place: tf.Tensor | int) -> tf.Tensor:
    """int32 `[bytes]` from a place on, with zeros behind the end."""
    count = _BLOCK * _BLOCKS
    # A place behind the end would be an error, the end itself is none.
    place = tf.minimum(place, tf.strings.length(raw))
    part = tf.strings.substr(raw, place, count)
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int32)


def _palette_size(flags: tf.Tensor) -> tf.Tensor:
    """Bytes of the palette that these flags tell of."""
    size = tf.bitwise.left_shift(6, tf.bitwise.bitwise_and(flags, 7))
    return tf.where(flags >= 128, size, 0)


def _area(*sides: tf.Tensor) -> tf.Tensor:
    """Pixels of a frame, of four bytes with its width and height."""
    low, high, below, above = sides
    # As floats: the product of two such numbers does not fit in 32 bits.
    width, height = low + 256 * high, below + 256 * above
    return tf.cast(width, tf.float32) * tf.cast(height, tf.float32)
