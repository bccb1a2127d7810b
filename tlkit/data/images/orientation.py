"""How a camera was held: the EXIF orientation of a JPEG, read and applied.

Only TensorFlow's ops: the same code runs in tf.data and inside an exported SavedModel.
Of PNG and WebP, where hardly any program writes or heeds it, it is not read.
"""

from __future__ import annotations

import tensorflow as tf

_LOOKED_AT = 2**16  # bytes; cameras write EXIF first
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
    start = tf.strings.substr(raw, 0, _LOOKED_AT)
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
        tf.io.decode_raw(tiff, tf.uint16, is_little, fixed_length=_LOOKED_AT)
        for is_little in (True, False)
    ]
    words = tf.cast(tf.where(little, *both), tf.int32)
    # Of four bytes that give a place in 64 KiB two are zeros.
    directory = tf.reduce_max(words[2:4]) // 2
    count = tf.gather(words, tf.minimum(directory, _LOOKED_AT // 2 - 1))
    # Those that are there, each of six words.
    rest = words[directory + 1 :]
    count = tf.minimum(count, tf.size(rest) // 6)
    entries = tf.reshape(rest[: 6 * count], [-1, 6])
    tags, kinds, _, _, values, _ = tf.unstack(entries, axis=1)
    given = (tags == _ORIENTATION) & (kinds == _SHORT)
    given &= known & (values >= 1) & (values <= 8)
    # The 1 is for an empty directory.
    return tf.reduce_max(tf.concat([[1], tf.where(given, values, 1)], axis=0))
