"""JPEGs, decoded no larger than they have to be.

How a camera was held: the EXIF orientation of a JPEG, read and applied.

Only TensorFlow's ops: the same code runs in tf.data and inside an exported SavedModel.
Of PNG and WebP, where hardly any program writes or heeds it, it is not read.
"""

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
_FRAME_BYTES = 2**22  # bytes, for the header of the frame in an enormous picture
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
        tf.io.decode_raw(tf.strings.substr(raw, 0, _FRAME_BYTES), tf.uint8), tf.int32
    )
    sides = 256 * data[:-1] + data[1:]
    # After the mark: two bytes of length, one of precision, height and width.
    found = (sides[:-7] == _PROGRESSIVE) & (sides[5:-2] == shape[0])
    return tf.reduce_any(found & (sides[7:] == shape[1]))


# === Orientation ===


_EXIF_BYTES = 2**16  # bytes; cameras write EXIF first
_ORIENTATION, _SHORT = 0x0112, 3

# By orientation, 0 being none: an upright picture is the stored one with its rows
# reversed, then its columns reversed, then rows and columns exchanged.
_ROWS_REVERSED = (0, 0, 0, 1, 1, 0, 1, 1, 0)
_COLUMNS_REVERSED = (0, 0, 1, 1, 0, 0, 0, 1, 1)
_FIRST_EXCHANGED = 5


def read_orientation(raw: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation of a JPEG.

    Args:
        raw: A string with an encoded JPEG. Its first 64 KiB are looked at.

    Returns:
        int32 scalar in 1…8. It is 1, upright, where there is no EXIF, and where it is
        damaged.
    """
    start = tf.strings.substr(raw, 0, _EXIF_BYTES)
    parts = tf.raw_ops.StringSplitV2(input=[start], sep=b"Exif\0\0", maxsplit=1).values
    return tf.cond(
        tf.size(parts) > 1, lambda: _from_tiff(parts[1]), lambda: tf.constant(1)
    )


def exchanges(orientation: tf.Tensor) -> tf.Tensor:
    """Whether the rows of the stored picture are the columns of the upright one."""
    return orientation >= _FIRST_EXCHANGED


def stored_window(window: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Where a window of the upright picture is in the stored one.

    Args:
        window: float32 `[4]`: `(y, x, height, width)` in shares of the upright picture.
        orientation: int32 scalar in 1…8.

    Returns:
        float32 `[4]`, likewise, in shares of the stored picture.
    """
    exchanged = tf.gather(window, [1, 0, 3, 2])
    y, x, height, width = tf.unstack(
        tf.where(exchanges(orientation), exchanged, window)
    )
    y = tf.where(_says(_ROWS_REVERSED, orientation), 1 - y - height, y)
    x = tf.where(_says(_COLUMNS_REVERSED, orientation), 1 - x - width, x)
    return tf.stack([y, x, height, width])


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns a stored picture `[h, w, 3]` as it was seen.

    Args:
        image: The picture, of any dtype.
        orientation: int32 scalar in 1…8.

    Returns:
        The picture, `[w, h, 3]` where the orientation is 5 or more.
    """

    def turned() -> tf.Tensor:
        tables = zip(_ROWS_REVERSED, _COLUMNS_REVERSED, strict=True)
        reversed_axes = tf.gather([[*map(bool, x), False] for x in tables], orientation)
        order = tf.where(exchanges(orientation), [1, 0, 2], [0, 1, 2])
        # Not tf.reverse, which takes the axes' numbers.
        return tf.transpose(tf.raw_ops.Reverse(tensor=image, dims=reversed_axes), order)

    return tf.cond(tf.equal(orientation, 1), lambda: image, turned)


def _says(table: tuple[int, ...], orientation: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.gather(table, orientation), 1)


def _from_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation that the first directory of a TIFF, EXIF's form, gives."""
    order = tf.strings.substr(tiff, 0, 4)
    little = tf.equal(order, b"II*\0")
    known = little | tf.equal(order, b"MM\0*")
    # All that is read are words of two bytes at even places.
    both = [
        tf.io.decode_raw(tiff, tf.uint16, is_little, fixed_length=_EXIF_BYTES)
        for is_little in (True, False)
    ]
    words = tf.cast(tf.where(little, *both), tf.int32)
    # Of four bytes that give a place in 64 KiB two are zeros.
    directory = tf.reduce_max(words[2:4]) // 2
    count = tf.gather(words, tf.minimum(directory, _EXIF_BYTES // 2 - 1))
    # Those that are there, each of six words.
    rest = words[directory + 1 :]
    count = tf.minimum(count, tf.size(rest) // 6)
    entries = tf.reshape(rest[: 6 * count], [-1, 6])
    tags, kinds, _, _, values, _ = tf.unstack(entries, axis=1)
    given = (tags == _ORIENTATION) & (kinds == _SHORT)
    given &= known & (values >= 1) & (values <= 8)
    # The 1 is for an empty directory.
    return tf.reduce_max(tf.concat([[1], tf.where(given, values, 1)], axis=0))
