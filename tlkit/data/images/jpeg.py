"""Decodes JPEG images no larger than necessary, and applies their EXIF orientation.

Only TensorFlow ops are used: the same code runs in `tf.data` and in an export.

Tested in tests/data/images/test_decoder.py.
"""

import tensorflow as tf

from .limits import MAX_PIXELS, check_size, product
from .resampling import in_pixels, resize

# A JPEG can be decoded at 1/ratio of its size. A half takes a fourth of the work, apart
# from reading the data, and does not alias, since high frequencies are left out.
_RATIOS = (1, 2, 4, 8)
# An image is decoded at this many times the requested size or more, and then resized.
# Compared with resizing the full image, the pixels of a sharp photograph differ by 1.7
# of 255 on average. With a reserve of 2 they differ by 0.8, for three times the work;
# with a reserve of 1 by 3.
_RESERVE = 1.25
# Pixels times channels. TensorFlow rejects larger JPEGs with "invalid data".
_MAX_VALUES = 2**29
_FRAME_BYTES = 2**22  # bytes of a file in which its frame header is looked for
# The first bytes of a progressive JPEG's frame header: marker, length and precision.
# The index is the number of channels.
_PROGRESSIVE = [b"\xff\xc2\0%c\x08" % (8 + 3 * channels) for channels in range(5)]


def decode_jpeg(
    raw: tf.Tensor, size: tf.Tensor, window: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes a JPEG, or a window of it, and resizes it.

    Args:
        raw: A scalar string.
        size: int32 `[2]`: height and width.
        window: float32 `[4]`: `(y, x, height, width)` of the part to take, as fractions
            of the stored image. Little more than this part is decoded.

    Returns:
        float32 `[height, width, 3]` in 0…255, as stored: not rotated as its EXIF
        orientation says.

    Raises:
        tf.errors.InvalidArgumentError: It is broken or too large.
    """
    pixels, begin, extent = reduced(raw, size, window)
    return resize(pixels, size, begin, extent)


def reduced(
    raw: tf.Tensor, size: tf.Tensor, window: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a JPEG no larger than a size requires. Arguments as for `decode_jpeg`.

    Returns:
        The pixels, uint8 `[h, w, 3]`, and the beginning and extent of the window in
        them, each float32 `[2]`. These may be fractions of a pixel: at an eighth of its
        size, a side of 427 pixels is decoded to 54 pixels, but has an extent of 53.4.
    """
    shape = tf.io.extract_jpeg_shape(raw)
    origin, sides = None, shape[:2]
    if window is not None:
        origin, sides = tf.split(in_pixels(window, sides), 2)
    needed = _RESERVE * tf.cast(size, tf.float32)
    ratios = tf.constant([[ratio] for ratio in _RATIOS[1:]], tf.float32)
    enough = tf.cast(sides, tf.float32) >= ratios * needed
    # If a ratio is possible, all smaller ratios are, too. So the number of possible
    # ratios is the index of the largest.
    index = tf.reduce_sum(tf.cast(tf.reduce_all(enough, axis=1), tf.int32))
    ratio = tf.gather(_RATIOS, index)
    raw = check_size(_fits(raw, shape, ratio), raw, shape[1], shape[0])
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
    """Decodes a JPEG at 1/`ratio` of its size.

    `part` is `(y, x, height, width)` in pixels of the reduced image; `None` for all.
    """
    # TensorFlow's default is a faster, but less exact transform.
    options = {"channels": 3, "ratio": ratio, "dct_method": "INTEGER_ACCURATE"}
    if part is None:
        return tf.io.decode_jpeg(raw, **options)
    return tf.io.decode_and_crop_jpeg(raw, part, **options)


def _fits(raw: tf.Tensor, shape: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    """Returns whether a JPEG fits into memory if decoded at 1/`ratio` of its size."""
    values = product(shape)

    def fits_reduced() -> tf.Tensor:
        # A progressive JPEG needs the same memory at any ratio: all its frequencies are
        # held until its last scan is read.
        start = tf.strings.substr(raw, 0, _FRAME_BYTES)
        marker = tf.gather(_PROGRESSIVE, shape[2])
        is_baseline = tf.equal(tf.size(_split_once(start, marker)), 1)
        return is_baseline & (values / tf.cast(ratio**2, tf.float32) < _MAX_VALUES)

    limit = min(MAX_PIXELS, _MAX_VALUES)
    return tf.cond(values < limit, lambda: True, fits_reduced)


def _split_once(text: tf.Tensor, separator: tf.Tensor | bytes) -> tf.Tensor:
    return tf.raw_ops.StringSplitV2(input=[text], sep=separator, maxsplit=1).values


# The EXIF orientation of PNG and WebP images is not read: hardly any program writes or
# applies it.
_EXIF_BYTES = 2**16  # bytes; EXIF data is at the beginning of a file
_ORIENTATION, _SHORT = 0x0112, 3

# Tables by orientation, 1 to 8; entry 0 is not used. They say how the stored image
# becomes upright: reverse its rows, then its columns, then exchange rows and columns.
_ROWS_REVERSED = (0, 0, 0, 1, 1, 0, 1, 1, 0)
_COLUMNS_REVERSED = (0, 0, 1, 1, 0, 0, 0, 1, 1)
_FIRST_EXCHANGED = 5


def read_orientation(raw: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation of a JPEG from its first 64 KiB.

    Returns:
        int32 scalar in 1…8; 1, upright, if the EXIF data is missing or damaged.
    """
    parts = _split_once(tf.strings.substr(raw, 0, _EXIF_BYTES), b"Exif\0\0")
    return tf.cond(
        tf.size(parts) > 1, lambda: _from_tiff(parts[1]), lambda: tf.constant(1)
    )


def exchanges(orientation: tf.Tensor) -> tf.Tensor:
    """Returns whether the rows of the stored image are columns of the upright one."""
    return orientation >= _FIRST_EXCHANGED


def stored_window(window: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Converts a window of the upright image to one of the stored image."""
    exchanged = tf.gather(window, [1, 0, 3, 2])
    y, x, height, width = tf.unstack(
        tf.where(exchanges(orientation), exchanged, window)
    )
    y = tf.where(_is_set(_ROWS_REVERSED, orientation), 1 - y - height, y)
    x = tf.where(_is_set(_COLUMNS_REVERSED, orientation), 1 - x - width, x)
    return tf.stack([y, x, height, width])


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors a stored image `[h, w, 3]` as its orientation says."""

    def turned() -> tf.Tensor:
        tables = zip(_ROWS_REVERSED, _COLUMNS_REVERSED, strict=True)
        reversed_axes = tf.gather([[*map(bool, x), False] for x in tables], orientation)
        order = tf.where(exchanges(orientation), [1, 0, 2], [0, 1, 2])
        # Not tf.reverse: it takes the axes to reverse, whose number is not known here.
        return tf.transpose(tf.raw_ops.Reverse(tensor=image, dims=reversed_axes), order)

    return tf.cond(tf.equal(orientation, 1), lambda: image, turned)


def _is_set(table: tuple[int, ...], orientation: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.gather(table, orientation), 1)


def _from_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Reads the orientation from the first directory of EXIF data, which is a TIFF."""
    order = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(order, b"II*\0")
    is_tiff = little | tf.equal(order, b"MM\0*")
    # All values that are read are words of two bytes at even offsets.
    both = [
        tf.io.decode_raw(tiff, tf.uint16, is_little, fixed_length=_EXIF_BYTES)
        for is_little in (True, False)
    ]
    words = tf.cast(tf.where(little, *both), tf.int32)
    # An offset has two words. One of them is 0, since the offset is below 64 KiB.
    directory = tf.reduce_max(words[2:4]) // 2
    count = tf.gather(words, tf.minimum(directory, _EXIF_BYTES // 2 - 1))
    # Only the entries that are within the data, each of six words.
    rest = words[directory + 1 :]
    count = tf.minimum(count, tf.size(rest) // 6)
    entries = tf.reshape(rest[: 6 * count], [-1, 6])
    tags, kinds, _, _, values, _ = tf.unstack(entries, axis=1)
    valid = (tags == _ORIENTATION) & (kinds == _SHORT)
    valid &= is_tiff & (values >= 1) & (values <= 8)
    # The 1 is the result for an empty directory.
    return tf.reduce_max(tf.concat([[1], tf.where(valid, values, 1)], axis=0))
