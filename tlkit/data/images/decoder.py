"""Decodes an encoded image of any format to pixels of a given size.

The graph contains the ops that decode JPEG and PNG. In an export it also contains the
ops of `other_formats`, for all other formats. In a data set it calls them through
Python instead, since `tf.data` prepares every op of a graph again in each epoch.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from .jpeg import (
    decode_jpeg,
    exchanges,
    read_orientation,
    reduced,
    stored_window,
    upright,
)
from .limits import MAX_PIXELS, check_size, product
from .other_formats import decode_other_format, first_bytes, has_bytes, read_int32
from .resampling import crop, resize

# Calls a function that decodes an image and may raise an error. Takes the function, the
# encoded image, and the size of the function's result.
Attempt = Callable[[Callable[[tf.Tensor], tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]

_IN_PYTHON = contextvars.ContextVar("in_python", default=False)


@contextlib.contextmanager
def rare_formats_in_python() -> Iterator[None]:
    """Makes `decode` call Python, within the context, for all but JPEG and PNG images.

    A graph that calls Python runs in this process only. It has half as many ops, which
    halves the time before an epoch's first batch. A call takes about 0.5 ms per image.
    """
    token = _IN_PYTHON.set(True)
    try:
        yield
    finally:
        _IN_PYTHON.reset(token)


def decode(
    raw: tf.Tensor, size: tuple[int, int], window: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes an encoded image and resizes it with antialiasing.

    The contents determine the format: JPEG (gray, RGB, CMYK; rotated as its EXIF
    orientation says), PNG (8 or 16 bits, gray, with a palette), GIF or WebP (the first
    frame), or BMP. Transparency is dropped, as by Pillow's `convert("RGB")`.

    A JPEG that is much larger than `size` is decoded at a half, a quarter or an eighth
    of its size, but never below `size`, and then resized.

    Args:
        raw: A scalar string.
        size: Height and width of the result, in pixels.
        window: float32 `[4]`: `(y, x, height, width)` of the part to take, as fractions
            of the upright image, in 0…1. Only this part of a JPEG is decoded.

    Returns:
        float32 `[height, width, 3]` in 0…255.

    Raises:
        tf.errors.InvalidArgumentError: The image is broken, too large, or of another
            format.
    """
    height, width = size
    function = _decoder(int(height), int(width), window is not None, _IN_PYTHON.get())
    return function(raw) if window is None else function(raw, window)


def decode_where_possible(
    raw: tf.Tensor, size: tuple[int, int], attempt: Attempt
) -> tf.Tensor:
    """Decodes like `decode`, but calls `attempt`, which can catch errors.

    Only ops that can fail run inside `attempt`, since each op in it delays a request.

    Args:
        raw: A scalar string.
        size: Height and width, in pixels.
        attempt: Called with a function of the encoded image, the encoded image, and the
            size (int32 `[2]`) of the function's result. Returns this result, or other
            pixels of that size if the function raises an error.

    Returns:
        float32 `[height, width, 3]`.
    """
    return _decode(raw, size, None, attempt, decode_other_format)


@tf.autograph.experimental.do_not_convert
def check(raw: tf.Tensor) -> tf.Tensor:
    """Tests whether `decode` can decode an image, as cheaply as possible.

    Args:
        raw: A scalar string.

    Returns:
        int32 `[3]`: the shape of the decoded pixels.

    Raises:
        tf.errors.InvalidArgumentError: The image cannot be decoded.
    """
    # Decoding a JPEG at an eighth of its size still reads and checks the whole file.
    return tf.cond(
        tf.io.is_jpeg(raw),
        lambda: tf.shape(reduced(raw, tf.constant([0, 0]))[0]),
        lambda: _decode_png_or_other(raw, tf.shape, decode_other_format),
    )


@functools.cache
def _decoder(
    height: int, width: int, with_window: bool, in_python: bool
) -> Callable[..., tf.Tensor]:
    # Cached: a data set traces its map in every epoch, and tracing the decoder takes a
    # second. AutoGraph would take seconds more, and has nothing to convert.
    decode_other = _call_python if in_python else decode_other_format
    signature = [tf.TensorSpec([], tf.string)]
    signature += [tf.TensorSpec([4], tf.float32)] * with_window

    def decode_at_size(raw, window=None):
        call = lambda function, raw, _: function(raw)
        return _decode(raw, (height, width), window, call, decode_other)

    return tf.function(decode_at_size, input_signature=signature, autograph=False)


def _decode(
    raw: tf.Tensor,
    size: tuple[int, int],
    window: tf.Tensor | None,
    attempt: Attempt,
    decode_other: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    finish = lambda image: resize(crop(image, window), size)
    decode_raw = lambda raw: _decode_png_or_other(raw, finish, decode_other)
    image = tf.cond(
        tf.io.is_jpeg(raw),
        lambda: _decode_jpeg_upright(raw, size, window, attempt),
        lambda: attempt(decode_raw, raw, tf.constant(size)),
    )
    return tf.ensure_shape(image, (*size, 3))


def _decode_jpeg_upright(
    raw: tf.Tensor, size: tuple[int, int], window: tf.Tensor | None, attempt: Attempt
) -> tf.Tensor:
    orientation = read_orientation(raw)
    stored_size = tf.where(exchanges(orientation), size[::-1], size)
    if window is not None:
        window = stored_window(window, orientation)
    decode_raw = lambda raw: decode_jpeg(raw, stored_size, window)
    # Rotated last, when the image is small.
    return upright(attempt(decode_raw, raw, stored_size), orientation)


def _decode_png_or_other(
    raw: tf.Tensor,
    finish: Callable[[tf.Tensor], tf.Tensor],
    decode_other: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Decodes all formats but JPEG; returns `finish` of the uint8 or uint16 pixels."""
    header = first_bytes(raw)
    is_png = has_bytes(header, b"\x89PNG")
    is_16_bit = is_png & has_bytes(header, b"\x10", 24)
    sides = read_int32(header, 16, 2, little_endian=False)
    fits = ~is_png | (product(sides) <= MAX_PIXELS)
    raw = check_size(fits, raw, sides[0], sides[1])
    decode_png = lambda dtype: tf.io.decode_png(raw, channels=3, dtype=dtype)
    decode_8_bit = lambda: tf.cond(
        is_png, lambda: decode_png(tf.uint8), lambda: decode_other(raw)
    )
    return tf.cond(
        is_16_bit,
        lambda: finish(decode_png(tf.uint16)),
        lambda: finish(decode_8_bit()),
    )


def _call_python(raw: tf.Tensor) -> tf.Tensor:
    """Calls `decode_other_format` through Python, to keep its ops out of the graph."""
    image = tf.numpy_function(_decode_in_python, [raw], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))


def _decode_in_python(raw: bytes) -> np.ndarray:
    try:
        with tf.device("CPU"):  # where the data set runs, too
            return _other_format_decoder()(raw).numpy()
    except tf.errors.OpError as error:
        # TensorFlow turns a ValueError into an InvalidArgumentError. Only one line of
        # the message is the reason; the others say where the graph was traced.
        reason = error.message.partition("\n\t [[")[0].rpartition("\n")[2]
        raise ValueError(reason) from None


@functools.cache
def _other_format_decoder() -> Callable[[bytes], tf.Tensor]:
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(decode_other_format, input_signature=signature, autograph=False)
