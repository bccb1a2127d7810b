"""Operations that change the values of pixels, and the settings of color changes.

Input and output pixels are float32 `[height, width, 3]` in 0…255. A `factor` of 1
changes nothing. The results are those of Pillow's `ImageEnhance` and `ImageOps`, except
that they are not rounded.

Tested in tests/data/augmentation/test_augmented_pixels.py.
"""

import dataclasses
import numbers
from collections.abc import Mapping

import tensorflow as tf

from ...errors import DataError
from .example_seeds import part_seed, uniform

_GRAY = (0.299, 0.587, 0.114)  # weights of red, green and blue in gray


@dataclasses.dataclass(frozen=True)
class Color:
    """Limits of the random color changes of an image.

    Args:
        brightness: Pixels are multiplied by a factor drawn from `1 - brightness` to
            `1 + brightness`; in [0, 1].
        contrast: The pixels' differences from the image's mean gray are multiplied by a
            factor drawn from `1 - contrast` to `1 + contrast`; in [0, 1].
        saturation: The channels' differences from the gray of their pixel are
            multiplied by a factor drawn in the same way; in [0, 1].
        hue: Hues are rotated by up to this fraction of the color circle in either
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
            check_fraction(field.name, getattr(self, field.name), most=most)


def as_color(value: Color | Mapping[str, float] | float | None) -> Color | None:
    """Converts the argument `color` to a `Color`, or to `None` if it changes nothing.

    Raises:
        DataError: It has another type, or a number is out of its range.
    """
    if value is None or isinstance(value, Color):
        color = value
    elif isinstance(value, Mapping):
        allowed = [field.name for field in dataclasses.fields(Color)]
        if wrong := [str(name) for name in value if name not in allowed]:
            raise DataError(
                f"color may have {', '.join(allowed)}; got {', '.join(wrong)}."
            )
        color = Color(**value)
    else:
        check_fraction("color", value)
        color = Color(brightness=value, contrast=value, saturation=value)
    return None if color == Color() else color


def check_fraction(name: str, value: float, *, most: float = 1) -> None:
    """Raises a `DataError` if a value is not a number from 0 to `most`."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        raise DataError(
            f"{name} must be a number from 0 (off) to {most}; got {value!r}."
        )


def random_color(pixels: tf.Tensor, seed: tf.Tensor, *, color: Color) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in this order."""
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
    """Clips pixels to 0…255."""
    return tf.clip_by_value(pixels, 0.0, 255.0)


def brighten(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Multiplies pixels by `factor`; 0 gives a black image."""
    return clip(pixels * factor)


def contrast(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Scales the differences from the image's mean gray; 0 leaves only that gray."""
    mean = tf.tensordot(tf.reduce_mean(pixels, axis=(0, 1)), _GRAY, axes=1)
    return clip(pixels * factor + mean * (1 - factor))


def saturate(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Scales the differences from each pixel's gray; 0 gives a gray image."""
    # One matrix product is several times as fast as `rgb_to_grayscale`.
    gray = tf.tile(tf.constant(_GRAY)[:, tf.newaxis], (1, 3))
    matrix = factor * tf.eye(3) + (1 - factor) * gray
    changed = tf.reshape(pixels, (-1, 3)) @ matrix
    return clip(tf.reshape(changed, tf.shape(pixels)))


def sharpen(pixels: tf.Tensor, factor) -> tf.Tensor:
    """Scales the differences from a smoothed image; 0 gives the smoothed image.

    The pixels at the border are not changed.
    """
    means = tf.nn.avg_pool2d(pixels[tf.newaxis], 3, 1, "SAME")[0]
    # The smoothed image weights the pixel itself by 5, and its eight neighbors by 1.
    detail = (pixels - means)[1:-1, 1:-1] * (9 / 13)
    detail = tf.pad(detail, [[1, 1], [1, 1], [0, 0]])
    return clip(pixels + detail * (factor - 1))


def posterize(pixels: tf.Tensor, bits: int) -> tf.Tensor:
    """Sets all but the highest `bits` of the eight bits of every value to 0."""
    step = 2.0 ** (8 - bits)
    return tf.floor(pixels / step) * step


def solarize(pixels: tf.Tensor, threshold: float) -> tf.Tensor:
    """Inverts the values that are not below a threshold."""
    return tf.where(pixels < threshold, pixels, 255 - pixels)


def stretch_contrast(pixels: tf.Tensor) -> tf.Tensor:
    """Scales each channel so that its smallest value is 0 and its largest 255."""
    least = tf.reduce_min(pixels, axis=(0, 1))
    span = tf.reduce_max(pixels, axis=(0, 1)) - least
    stretched = (pixels - least) * tf.math.divide_no_nan(255.0, span)
    return clip(tf.where(span > 0, stretched, pixels))


def equalize(pixels: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel; the results are whole numbers."""
    channels = 3
    values = tf.cast(clip(pixels), tf.int32)
    bins = values + 256 * tf.range(channels)
    counts = tf.math.bincount(
        tf.reshape(bins, (-1,)), minlength=256 * channels, maxlength=256 * channels
    )
    counts = tf.reshape(counts, (channels, 256))
    total = tf.reduce_sum(counts, axis=1, keepdims=True)
    used = tf.range(256) * tf.cast(counts > 0, tf.int32)
    lightest = tf.reduce_max(used, axis=1)
    last = tf.gather(counts, lightest, batch_dims=1)[:, tf.newaxis]
    step = (total - last) // 255
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((before + step // 2) // tf.maximum(step, 1), 255)
    # A channel in which nearly all values are equal is not changed.
    table = tf.where(step > 0, table, tf.range(256))
    equalized = tf.gather(tf.reshape(table, (-1,)), bins)
    return tf.ensure_shape(tf.cast(equalized, tf.float32), pixels.shape)
