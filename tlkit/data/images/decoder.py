"""From an encoded picture to pixels of a size.

Only TensorFlow's ops: the same code runs in tf.data and inside an exported SavedModel.
But a data set of this process, whose graph is optimized anew in every epoch, has in it
what decodes JPEGs and PNGs, and calls back for the rest: see `usual_kinds_first`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf

from .jpeg import (
    decode_jpeg,
    exchanges,
    fits_whole,
    read_orientation,
    reduced,
    stored_window,
    upright,
)
from .other_formats import (
    begins,
    checked,
    decode_bitmap,
    decode_gif,
    first_bytes,
    numbers,
    png_fits,
    refuse_enormous,
)
from .resize import crop, resize

# Runs a function of a raw picture that may fail.
Attempt = Callable[[Callable[[tf.Tensor], tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]

_USUAL_FIRST = contextvars.ContextVar("usual_first", default=False)
# A call back takes half a millisecond, as much as decoding a small picture. Where so
# many have come, graphs that are made from then on have all kinds in them again.
_MANY = 64
_called_back = 0


@contextlib.contextmanager
def usual_kinds_first() -> Iterator[None]:
    """Makes graphs of `decode` that begin sooner, and run in this process only.

    Most of the ops are for kinds of pictures that hardly any data set has. In here,
    `decode` leaves them out: JPEGs and PNGs are decoded in the graph, and what is
    something else in a function of Python, which has a graph of its own. Two thirds of
    the time before the first picture are saved, and a tenth of a millisecond for each.
    """
    before = _USUAL_FIRST.set(True)
    try:
        yield
    finally:
        _USUAL_FIRST.reset(before)


def decode(
    raw: tf.Tensor, size: tuple[int, int], window: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes an encoded picture at a size.

    The contents decide what it is: a JPEG (gray, RGB, CMYK; turned as its EXIF
    orientation says), PNG (of 8 or 16 bits, gray, with a palette), GIF or WebP (the
    first frame), or BMP. Transparency is dropped and the color beneath it shows, as in
    Pillow's `convert("RGB")`. Resized with antialiasing.

    A JPEG that is much larger than `size` is decoded at a half, a quarter or an eighth
    of its size, but never below `size`, and then resized.

    Args:
        raw: A scalar string.
        size: Height and width to resize to, in pixels.
        window: float32 `[4]`: `(y, x, height, width)` of the part to take, in shares of
            the upright picture, in 0…1. Of a JPEG, little more than it is decoded.

    Returns:
        float32 `[height, width, 3]` in 0…255.

    Raises:
        tf.errors.InvalidArgumentError: It is broken, of another kind, or too large.
    """
    height, width = size
    usual_first = _USUAL_FIRST.get() and _called_back < _MANY
    function = _decoder(int(height), int(width), window is not None, usual_first)
    return function(raw) if window is None else function(raw, window)


def decode_where_possible(
    raw: tf.Tensor, size: tuple[int, int], attempt: Attempt
) -> tf.Tensor:
    """Decodes as `decode` does, where an error may be stopped.

    What cannot fail stays outside of `attempt`, since serving pays for every op in it.

    Args:
        raw: A scalar string.
        size: Height and width, in pixels.
        attempt: Called with a function of the raw picture, the raw picture and the size
            (int32 `[2]`) of what the function gives. It gives the function's value, or
            pixels of that size in its place.

    Returns:
        float32 `[height, width, 3]`.
    """
    return _decode(raw, size, None, attempt)


@functools.cache
def _decoder(
    height: int, width: int, with_window: bool, usual_first: bool
) -> Callable[..., tf.Tensor]:
    # One graph for all data sets: every epoch maps anew, and making this one takes a
    # second. AutoGraph has nothing to convert here, and takes seconds to find that out.
    signature = [tf.TensorSpec([], tf.string)]
    signature += [tf.TensorSpec([4], tf.float32)] * with_window
    size = (height, width)

    def decode_at_size(raw, window=None):
        if usual_first:
            return _decode_usual_first(raw, size, window)
        return _decode(raw, size, window, _as_it_is)

    return tf.function(decode_at_size, input_signature=signature, autograph=False)


def _as_it_is(
    function: Callable[[tf.Tensor], tf.Tensor], raw: tf.Tensor, _: tf.Tensor
) -> tf.Tensor:
    return function(raw)


def _decode_usual_first(
    raw: tf.Tensor, size: tuple[int, int], window: tf.Tensor | None
) -> tf.Tensor:
    given = [raw] if window is None else [raw, window]
    header = first_bytes(raw)
    is_jpeg = tf.io.is_jpeg(raw)
    is_png = begins(header, b"\x89PNG") & begins(header, b"\x08", at=24)
    usual = tf.cond(is_jpeg, lambda: fits_whole(raw), lambda: is_png & png_fits(header))
    branches = [
        lambda: tf.py_function(_whole_decoder(size), given, tf.float32),
        lambda: resize(crop(_png(raw), window), size),
        lambda: _jpeg(raw, size, window, _as_it_is, fits=True),
    ]
    index = tf.where(usual, 1 + tf.cast(is_jpeg, tf.int32), 0)
    return tf.ensure_shape(tf.switch_case(index, branches), (*size, 3))


def _whole_decoder(size: tuple[int, int]) -> Callable[..., tf.Tensor]:
    @tf.autograph.experimental.do_not_convert
    def decode_whole(*given):
        global _called_back
        _called_back += 1
        try:
            with tf.device("CPU"):  # as in the rest of a data set
                return _decoder(*size, len(given) > 1, False)(*given)
        except tf.errors.OpError as error:
            # What is a ValueError here is an InvalidArgumentError there.
            raise ValueError(_in_words(given[0]) or error.message) from None

    return decode_whole


def _in_words(raw: tf.Tensor) -> str | None:
    """What is wrong with a picture, without the places of the code of a graph."""
    try:
        check(raw)
    except tf.errors.OpError as error:
        return error.message
    return None


def _decode(
    raw: tf.Tensor,
    size: tuple[int, int],
    window: tf.Tensor | None,
    attempt: Attempt,
) -> tf.Tensor:
    finish = lambda image: resize(crop(image, window), size)
    image = tf.cond(
        tf.io.is_jpeg(raw),
        lambda: _jpeg(raw, size, window, attempt),
        lambda: attempt(lambda raw: _other(raw, finish), raw, tf.constant(size)),
    )
    return tf.ensure_shape(image, (*size, 3))


@tf.autograph.experimental.do_not_convert
def check(raw: tf.Tensor) -> tf.Tensor:
    """Decodes an encoded picture as cheaply as shows whether `decode` can.

    Args:
        raw: A scalar string.

    Returns:
        int32 `[3]`: the shape of what has been decoded.

    Raises:
        tf.errors.InvalidArgumentError: It cannot be decoded.
    """
    # A JPEG's data is read to the end whatever the ratio.
    return tf.cond(
        tf.io.is_jpeg(raw),
        lambda: tf.shape(reduced(raw, tf.constant([0, 0]))[0]),
        lambda: _other(raw, tf.shape),
    )


def _jpeg(
    raw: tf.Tensor,
    size: tuple[int, int],
    window: tf.Tensor | None,
    attempt: Attempt,
    fits: bool = False,
) -> tf.Tensor:
    orientation = read_orientation(raw)
    stored = tf.where(exchanges(orientation), size[::-1], size)
    if window is not None:
        window = stored_window(window, orientation)
    decode_at_size = lambda raw: decode_jpeg(raw, stored, window, fits=fits)
    image = attempt(decode_at_size, raw, stored)
    # Turned when it is small.
    return upright(image, orientation)


def _other(raw: tf.Tensor, finish: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Decodes what is not a JPEG to `[h, w, 3]`, and finishes it."""
    header = first_bytes(raw)
    raw = refuse_enormous(raw, header)
    png, gif, bmp = (begins(header, magic) for magic in (b"\x89PNG", b"GIF8", b"BM"))
    index = tf.reduce_sum(tf.where([png, gif, bmp], [1, 2, 3], 0))
    decoders = [_any, _png, decode_gif, decode_bitmap]

    def shallow() -> tf.Tensor:
        return tf.switch_case(index, [lambda d=decoder: d(raw) for decoder in decoders])

    def deep() -> tf.Tensor:
        return tf.io.decode_png(raw, channels=3, dtype=tf.uint16)

    is_deep = png & begins(header, b"\x10", at=24)
    return tf.cond(is_deep, lambda: finish(deep()), lambda: finish(shallow()))


def _png(raw: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_png(raw, channels=3)


def _any(raw: tf.Tensor) -> tf.Tensor:
    """WebP and JPEG XL, and the error for what is nothing."""
    # By number: TensorFlow drops no transparency of these, but refuses it.
    image = tf.io.decode_image(_safe(raw), channels=0, expand_animations=False)
    return tf.cond(
        tf.shape(image)[-1] < 3,
        lambda: tf.repeat(image[..., :1], 3, axis=-1),
        lambda: image[..., :3],
    )


def _safe(raw: tf.Tensor) -> tf.Tensor:
    """Refuses an animated WebP that has no transparency."""
    # TensorFlow (2.20, 2.21) writes four channels of it where it has room for three,
    # which corrupts the memory and ends the process, a server's, too.
    header = first_bytes(raw)
    extended = begins(header, b"RIFF") & begins(header, b"VP8X", at=12)
    flags = numbers(header, 20, 1, tf.uint8)[0]
    moves, is_transparent = (
        tf.not_equal(tf.bitwise.bitwise_and(flags, flag), 0) for flag in (2, 16)
    )
    message = (
        "An animated WebP without transparency cannot be decoded. Save it as a GIF, or "
        "its first frame alone."
    )
    return checked(raw, ~(extended & moves) | is_transparent, message)
