"""What the arguments of an augmentation may be."""

from __future__ import annotations

import tensorflow as tf

from ...errors import DataError
from .rand_augment import MOST


def check_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Returns a picture as a tensor, or raises a `DataError` if it is none."""
    pixels = tf.convert_to_tensor(pixels)
    shape = pixels.shape
    right = shape.rank == 3 and shape[-1] in (3, None)
    if pixels.dtype != tf.float32 or not right:
        raise DataError(
            "Augmentation takes pictures as float32 [height, width, 3] in 0…255; got "
            f"{pixels.dtype.name} {shape}. Type: tf.cast(pixels, tf.float32)"
        )
    return pixels


def check_crop(crop) -> tuple[float, float] | None:
    """Returns a range of areas, or raises a `DataError`."""
    if crop is None:
        return None
    pair = _pair(crop)
    if pair is None or not 0 < pair[0] <= pair[1] <= 1:
        raise DataError(
            "crop must be the least and the largest share of a picture's area, above 0 "
            f"and up to 1, or None; got {crop!r}. Type: crop=(0.6, 1.0)"
        )
    return float(pair[0]), float(pair[1])


def check_rand_augment(given) -> tuple[int, float] | None:
    """Returns a number of operations and a magnitude, or raises a `DataError`."""
    if given is None:
        return None
    pair = _pair(given)
    if (
        pair is None
        or not isinstance(pair[0], int)
        or pair[0] < 1
        or not 0 <= pair[1] <= MOST
    ):
        raise DataError(
            "rand_augment must be how many operations are applied, 1 or more, and how "
            f"strongly, from 0 to {MOST}, or None; got {given!r}. "
            "Type: rand_augment=(2, 9)"
        )
    return pair[0], float(pair[1])


def _pair(given) -> tuple | None:
    if not isinstance(given, tuple | list) or len(given) != 2:
        return None
    return tuple(given) if all(_is_number(value) for value in given) else None


def check_alpha(name: str, alpha) -> None:
    """Raises a `DataError` if the beta distribution has no such parameter."""
    if not _is_number(alpha) or not 0 <= alpha < float("inf"):
        raise DataError(
            f"{name} must be 0 (off) or a positive number, the alpha of the beta "
            f"distribution; got {alpha!r}. Type: {name}=0.2"
        )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
