"""What changes the values of pixels and leaves them where they are.

Pixels are float32 `[height, width, 3]` in 0…255, and what comes out is in 0…255, too.
A `factor` of 1 changes nothing, as in Pillow's `ImageEnhance`, which these follow;
except that values are not rounded to whole numbers in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from ...errors import DataError
from .example_seeds import part_seed, uniform

_GRAY = (0.299, 0.587, 0.114)  # how bright red, green and blue are


@dataclasses.dataclass(frozen=True)
class Color:
    """How far the colors of a picture may change.

    Args:
        brightness: Pixels are multiplied by a factor drawn from `1 - brightness` to
            `1 + brightness`; in [0, 1].
        contrast: Likewise their differences from the picture's mean gray; in [0, 1].
        saturation: Likewise their differences from their own gray; in [0, 1].
        hue: Colors are turned by up to that share of the whole circle in either
            direction; in [0, 0.5].

    Raises:
        DataError: A number is out of its range.

    Example:

    ```python
    color = tlkit.data.Color(brightness=0.2, hue=0.05)
    color  # Color(brightness=0.2, contrast=0.0, saturation=0.0, hue=0.05)
    augmentation = tlkit.data.Augmentation(color=color)
    report = tlkit.fit(model, splits, augmentation=augmentation)
    ```
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            most = 0.5 if field.name == "hue" else 1
            check_share(field.name, getattr(self, field.name), most=most)


def as_color(given: Color | Mapping[str, float] | float | None) -> Color | None:
    """The color changes that a number, a dict or a `Color` stands for, if any.

    Raises:
        DataError: It is none of these, or a number is out of its range.
    """
    if given is None or isinstance(given, Color):
        color = given
    elif isinstance(given, Mapping):
        allowed = [field.name for field in dataclasses.fields(Color)]
        if wrong := [str(name) for name in given if name not in allowed]:
            raise DataError(
                f"color may have {', '.join(allowed)}; got {', '.join(wrong)}."
            )
        color = Color(**given)
    else:
        check_share("color", given)
        color = Color(brightness=given, contrast=given, saturation=given)
    return None if color == Color() else color


def check_share(name: str, value: float, *, most: float = 1) -> float:
    """Returns a number from 0 to `most`, or raises a `DataError` if it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= most:
        raise DataError(
            f"{name} must be a number from 0 (off) to {most}; got {value!r}."
        )
    return value


def random_color(pixels: tf.Tensor, seed: tf.Tensor, *, color: Color) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in this order.

    Args:
        pixels: Float32 `[height, width, 3]` in 0…255.
        seed: Int32 or int64 `[2]`.
        color: How far.

    Returns:
        Float32 of the same shape, in 0…255.
    """
    steps = (brighten, contrast, saturate)
    limits = (color.brightness, color.contrast, color.saturation)
    draws = tf.unstack(uniform(part_seed(seed, 0), (4,), low=-1.0))
    for step, limit, draw in zip(steps, limits, draws[:3], strict=True):
        if limit:
            pixels = step(pixels, 1 + draw * limit)
    if color.hue:
        pixels = clip(tf.image.adjust_hue(pixels, draws[3] * color.hue))
    return pixels


def clip(pixels: tf.Tensor) -> tf.Tensor:
    """Brings pixels back into 0…255."""
    return tf.clip_by_value(pixels, 0.0, 255.0)


def brighten(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Multiplies pixels; 0 is black."""
    return clip(pixels * factor)


def contrast(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Takes pixels away from the picture's mean gray; 0 is all gray."""
    mean = tf.tensordot(tf.reduce_mean(pixels, axis=(0, 1)), _GRAY, axes=1)
    return clip(pixels * factor + mean * (1 - factor))


def saturate(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Takes pixels away from their own gray; 0 is a gray picture."""
    # As one product of matrices, several times as fast as `rgb_to_grayscale`.
    gray = tf.tile(tf.constant(_GRAY)[:, tf.newaxis], (1, 3))
    matrix = factor * tf.eye(3) + (1 - factor) * gray
    changed = tf.reshape(pixels, (-1, 3)) @ matrix
    return clip(tf.reshape(changed, tf.shape(pixels)))


def sharpen(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Takes pixels away from their smoothed neighborhood; 0 is a smooth picture.

    The pixels at the border stay as they are.
    """
    means = tf.nn.avg_pool2d(pixels[tf.newaxis], 3, 1, "SAME")[0]
    # Eight neighbors weigh 1 each, and the pixel itself 5.
    detail = (pixels - means)[1:-1, 1:-1] * (9 / 13)
    detail = tf.pad(detail, [[1, 1], [1, 1], [0, 0]])
    return clip(pixels + detail * (factor - 1))


def posterize(pixels: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps that many of eight bits of every value."""
    step = 2.0 ** (8 - bits)
    return tf.floor(pixels / step) * step


def solarize(pixels: tf.Tensor, threshold: float) -> tf.Tensor:
    """Inverts the values from the threshold on."""
    return tf.where(pixels < threshold, pixels, 255 - pixels)


def stretch_contrast(pixels: tf.Tensor) -> tf.Tensor:
    """Makes the darkest value of each channel 0 and the lightest 255."""
    least = tf.reduce_min(pixels, axis=(0, 1))
    span = tf.reduce_max(pixels, axis=(0, 1)) - least
    stretched = (pixels - least) * tf.math.divide_no_nan(255.0, span)
    return clip(tf.where(span > 0, stretched, pixels))


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Makes all values about equally frequent in each channel; gives whole numbers."""
    channels = 3
    values = tf.cast(clip(pixels), tf.int32)
    places = values + 256 * tf.range(channels)
    counts = tf.math.bincount(
        tf.reshape(places, (-1,)), minlength=256 * channels, maxlength=256 * channels
    )
    counts = tf.reshape(counts, (channels, 256))
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    used = tf.range(256) * tf.cast(counts > 0, tf.int32)
    lightest = tf.reduce_max(used, axis=1)
    last = tf.gather(counts, lightest, batch_dims=1)[:, tf.newaxis]
    step = (total - last) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((before + step // 2) // tf.maximum(step, 1), 255)
    # A channel with next to nothing but one value stays as it is.
    table = tf.where(step > 0, table, tf.range(256))
    found = tf.gather(tf.reshape(table, (-1,)), places)
    return tf.ensure_shape(tf.cast(found, tf.float32), pixels.shape)
