"""What the first bytes of an encoded picture say, read with TensorFlow's ops.

Only ops, and few of them: the same code runs in tf.data, which takes a third of a
second for a thousand ops whenever an epoch begins, and inside an exported SavedModel.

BMP pictures, with their palettes.

GIFs, of which all frames are decoded to get at the first one.
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


# === Bitmaps ===


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


# === Gifs ===

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
