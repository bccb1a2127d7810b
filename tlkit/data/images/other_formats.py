"""GIF, BMP and WebP images: TensorFlow's `decode_image`, made correct and safe.

The checks reject files that TensorFlow would decode to wrong pixels, or that would use
up the memory or crash the process. They are TensorFlow ops, so an export has them, too.
"""

import tensorflow as tf

from .limits import MAX_PIXELS, check_size, check_that, product

_HEADER_BYTES = 64
_BMP_FILE_HEADER = 14  # bytes; a second header follows, which begins with its size
_GIF_FRAME = 0x2C
# Each step of the loop over a GIF skips a run of blocks of equal length. Programs write
# all blocks of a frame but the last with one length, so a frame takes a few steps.
_GIF_STEPS, _GIF_RUN = 10_000, 4096


def first_bytes(raw: tf.Tensor) -> tf.Tensor:
    """Returns the first 64 bytes of a string, padded with zeros."""
    start = tf.strings.substr(raw, 0, _HEADER_BYTES)
    return tf.strings.join([start, b"\0" * _HEADER_BYTES])


def has_bytes(header: tf.Tensor, expected: bytes, offset: int = 0) -> tf.Tensor:
    """Returns whether the header has these bytes at an offset, as a bool scalar."""
    return tf.equal(tf.strings.substr(header, offset, len(expected)), expected)


def read_int32(
    header: tf.Tensor, offset: int, count: int = 1, *, little_endian: bool = True
) -> tf.Tensor:
    """Reads int32 `[count]` from the header, starting at the byte `offset`."""
    part = tf.strings.substr(header, offset, 4 * count)
    return tf.io.decode_raw(part, tf.int32, little_endian=little_endian)


def decode_other_format(raw: tf.Tensor) -> tf.Tensor:
    """Decodes an image that is neither a JPEG nor a PNG.

    Args:
        raw: A scalar string: a GIF or WebP, of which the first frame is decoded, or a
            BMP with 8, 24 or 32 bits per pixel.

    Returns:
        uint8 `[height, width, 3]`. Transparency is dropped.

    Raises:
        tf.errors.InvalidArgumentError: The image is broken, too large, a compressed
            BMP, an animated WebP without transparency, or of an unknown format.
    """
    header = first_bytes(raw)
    raw = _check_webp(_check_bmp(raw, header), header)
    raw = tf.cond(has_bytes(header, b"GIF8"), lambda: _first_frame(raw), lambda: raw)
    # With `channels=3` TensorFlow raises an error for a WebP with transparency.
    image = tf.io.decode_image(raw, channels=0, expand_animations=False)
    return tf.cond(
        tf.shape(image)[-1] < 3,
        lambda: tf.gather(_palette(raw, header), tf.cast(image[..., 0], tf.int32)),
        lambda: image[..., :3],
    )


def _check_webp(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    # TensorFlow 2.20 and 2.21 write four channels of an animated WebP without
    # transparency into memory for three channels, which crashes the process.
    is_extended = has_bytes(header, b"RIFF") & has_bytes(header, b"VP8X", 12)
    animated, transparent = 2, 16
    flags = tf.bitwise.bitwise_and(read_int32(header, 20)[0], animated + transparent)
    message = (
        "An animated WebP without transparency cannot be decoded. Save it as a GIF, or "
        "save only its first frame."
    )
    return check_that(~is_extended | (flags != animated), raw, message)


def _check_bmp(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    # `tf.image.decode_bmp` returns compressed bytes as if they were pixels.
    compression = read_int32(header, 30)[0]
    is_plain = (compression == 0) | (compression == 3)  # 3: plain, with bit masks
    message = "A compressed BMP cannot be decoded. Save it as a PNG."
    return check_that(~has_bytes(header, b"BM") | is_plain, raw, message)


def _palette(raw: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """Returns the palette of a BMP, whose indices TensorFlow decodes as gray values.

    Returns:
        uint8 `[256, 3]`: a color for each index; gray where there is no palette entry.
    """
    begin = _BMP_FILE_HEADER + read_int32(header, 14)[0]
    count = tf.clip_by_value((read_int32(header, 10)[0] - begin) // 4, 0, 256)
    begin, count = tf.unstack(tf.where(has_bytes(header, b"BM"), [begin, count], 0))
    entries = tf.strings.substr(raw, begin, 4 * count)
    entries = tf.reshape(tf.io.decode_raw(entries, tf.uint8), [-1, 4])
    grays = tf.constant([[value] * 3 for value in range(256)], tf.uint8)
    # An entry has blue, green, red and a zero.
    return tf.concat([entries[:, 2::-1], grays[count:]], axis=0)


def _first_frame(raw: tf.Tensor) -> tf.Tensor:
    """Removes all frames of a GIF but the first.

    TensorFlow decodes every frame, and a small file can have many large ones.

    Raises:
        tf.errors.InvalidArgumentError: The first frame is cut off or too large.
    """
    length = tf.strings.length(raw)
    # Padded, so that a header can be read where the file is cut off.
    data = tf.pad(tf.io.decode_raw(raw, tf.uint8), [[0, 16]])

    def byte(offset: tf.Tensor) -> tf.Tensor:
        return tf.cast(data[tf.minimum(offset, length + 15)], tf.int32)

    def palette_bytes(flags: tf.Tensor) -> tf.Tensor:
        size = tf.bitwise.left_shift(6, tf.bitwise.bitwise_and(flags, 7))
        return tf.where(flags >= 128, size, 0)

    def step(offset, kind, frame):
        # A section of the file has a header and blocks, each with its length in front;
        # a length of 0 ends the section. `kind` is the first byte of the section, or 0
        # if its header comes next.
        first, is_header = byte(offset), tf.equal(kind, 0)
        is_frame = is_header & tf.equal(first, _GIF_FRAME)
        header = tf.where(is_frame, 11 + palette_bytes(byte(offset + 9)), 2)
        block = first + 1
        lengths = data[offset : offset + _GIF_RUN * block : block]
        is_equal = tf.cast(tf.equal(lengths, data[offset]), tf.int32)
        run = tf.where(first > 0, tf.reduce_sum(tf.math.cumprod(is_equal)), 1)
        offset, frame = (
            offset + tf.where(is_header, header, run * block),
            tf.where(is_frame, offset, frame),
        )
        return offset, tf.where(is_header | tf.equal(first, 0), first, kind), frame

    end, kind, frame = tf.while_loop(
        lambda offset, kind, frame: (offset < length) & ((frame == 0) | (kind != 0)),
        step,
        (13 + palette_bytes(byte(10)), 0, 0),
        maximum_iterations=_GIF_STEPS,
        parallel_iterations=1,
    )
    is_whole = (frame > 0) & tf.equal(kind, 0) & (end <= length)
    message = "The first frame of the GIF is cut off, or its blocks are too many."
    raw = check_that(is_whole, raw, message)
    width, height = (byte(frame + at) + 256 * byte(frame + at + 1) for at in (5, 7))
    raw = check_size(product([height, width]) <= MAX_PIXELS, raw, width, height)
    return tf.strings.join([tf.strings.substr(raw, 0, end), b";"])
