"""The settings of an augmentation, and the order in which its operations apply."""

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...errors import DataError
from . import geometry, mixup
from .color import Color, as_color, check_fraction, random_color
from .example_seeds import example_seed, part_seed
from .rand_augment import MAX_MAGNITUDE, rand_augment

_FLIPS = ("horizontal", "vertical", "both")
_ASPECT = (3 / 4, 4 / 3)  # width over height of a crop: smallest and largest
# Each operation derives its seed from its number. A new operation gets a new number, so
# that the seeds of the others do not change.
_CROP, _FLIP, _RAND_AUGMENT, _COLOR, _ERASING, _WHICH, _BLEND = range(7)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to the images that a model is trained on.

    The defaults are mild: small crops and horizontal flips. The operations apply in the
    order of the arguments. The changes of an example depend only on the seed, the epoch
    and the example's index in the data. They do not depend on the order of the batches,
    on parallelism, or on where a run was resumed.

    Args:
        crop: The smallest and the largest area of a random crop, as fractions of the
            image's area in (0, 1]; or `None`. The width over height of a crop is 3/4 to
            4/3. The crop is resized to the image's size.
        flip: `"horizontal"`, `"vertical"` or `"both"`: an image is flipped with
            probability 0.5; or `None`, for instance for images of letters.
        rand_augment: The number of RandAugment operations and their magnitude, from 0
            to 10, such as `(2, 9)`; or `None`.
        color: The limit of changes of brightness, contrast and saturation, from 0 to 1,
            such as 0.2; or a `Color`, or a dict of its arguments; or `None`.
        erasing: The probability that a window of an image is replaced by noise, from 0
            to 1.
        mix_up: The alpha of MixUp, such as 0.2: images and their labels are averaged in
            pairs. 0 switches it off.
        cut_mix: The alpha of CutMix, such as 1: a window of another image is pasted,
            and the labels are blended by its area. 0 switches it off. If MixUp and
            CutMix are on, each batch gets one of the two, at random.

    Raises:
        DataError: An argument has a wrong type or is out of its range.

    Example:

    ```python
    augmentation = tlkit.data.Augmentation(color=0.2, erasing=0.25)
    augmentation.crop, augmentation.flip  # ((0.6, 1.0), "horizontal")
    report = tlkit.fit(model, splits, augmentation=augmentation)
    ```
    """

    _: dataclasses.KW_ONLY
    crop: tuple[float, float] | None = (0.6, 1.0)
    flip: str | None = "horizontal"
    rand_augment: tuple[int, float] | None = None
    color: Color | dict[str, float] | float | None = None
    erasing: float = 0.0
    mix_up: float = 0.0
    cut_mix: float = 0.0

    def __post_init__(self):
        if self.flip is not None and self.flip not in _FLIPS:
            allowed = ", ".join(f'"{flip}"' for flip in _FLIPS)
            raise DataError(f"flip must be {allowed} or None; got {self.flip!r}.")
        checked = {
            "crop": _check_crop(self.crop),
            "rand_augment": _check_rand_augment(self.rand_augment),
            "color": as_color(self.color),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_fraction("erasing", self.erasing)
        for name in ("mix_up", "cut_mix"):
            _check_alpha(name, getattr(self, name))

    @property
    def changes_examples(self) -> bool:
        """Whether the method `example` changes images."""
        parts = (self.crop, self.flip, self.rand_augment, self.color, self.erasing)
        return any(parts)

    @property
    def blends(self) -> bool:
        """Whether `batch` blends examples; it then makes labels `[batch, classes]`."""
        return bool(self.mix_up or self.cut_mix)

    def window(
        self, seed: tf.Tensor, *, height: int | tf.Tensor, width: int | tf.Tensor
    ) -> tf.Tensor:
        """Draws the window to which `example` crops an image.

        To decode only this window of a file, crop while decoding, and then call
        `example` with `crop=False`.

        Args:
            seed: Int32 or int64 `[2]`, from `example_seed`.
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.

        Returns:
            Float32 `[4]`: top, left, height and width, as fractions of the image's
            height and width; the whole image if `crop` is `None`.
        """
        if self.crop is None:
            return tf.constant([0.0, 0.0, 1.0, 1.0])
        return geometry.draw_window(
            part_seed(seed, _CROP),
            height=height,
            width=width,
            area=self.crop,
            aspect=_ASPECT,
        )

    def example(
        self, pixels: tf.Tensor, seed: tf.Tensor, *, crop: bool = True
    ) -> tf.Tensor:
        """Applies all operations on single images to one image.

        Args:
            pixels: Float32 `[height, width, 3]` in 0…255.
            seed: Int32 or int64 `[2]`, from `example_seed`.
            crop: `False` if the image is already cropped.

        Returns:
            Float32 of the same shape, in 0…255.

        Raises:
            DataError: The image has another dtype or shape.
        """
        pixels = _check_pixels(pixels)
        if not self.changes_examples:
            return pixels
        changed = _traced(self, crop)(pixels, seed)
        return tf.ensure_shape(changed, pixels.shape)

    def batch(
        self,
        pixels: tf.Tensor,
        labels: tf.Tensor,
        *,
        seed: tf.Tensor,
        classes: int,
        weights: tf.Tensor | None = None,
    ) -> mixup.Blended:
        """Blends the examples of one batch, with MixUp or CutMix.

        Args:
            pixels: Float32 `[batch, height, width, 3]`.
            labels: Integers `[batch]`, or float32 `[batch, classes]`.
            seed: Int32 or int64 `[2]`, from `batch_seed`.
            classes: The number of classes.
            weights: Float32 `[batch]`, or `None` if every example has weight 1.

        Returns:
            Pixels, labels and weights, unchanged without `mix_up` and `cut_mix`. Else
            labels are float32 `[batch, classes]` and sum to 1, and weights are those of
            the blended examples. A loss that is linear in the labels, such as cross
            entropy, sums the losses for the two labels by their fractions and weights.

        Raises:
            DataError: The labels are neither class indices nor `[batch, classes]`.
        """
        if not self.blends:
            return pixels, labels, weights
        labels = mixup.one_hot(labels, classes)
        blend_seed = part_seed(seed, _BLEND)
        alphas = {mixup.mix_up: self.mix_up, mixup.cut_mix: self.cut_mix}
        functions = [
            functools.partial(
                blend, pixels, labels, weights=weights, seed=blend_seed, alpha=alpha
            )
            for blend, alpha in alphas.items()
            if alpha
        ]
        return mixup.either(part_seed(seed, _WHICH), *functions)

    def show(self, pixels: Any, *, epochs: int = 6, seed: int = 0) -> tf.Tensor:
        """Draws augmented images beside the originals, for inspection.

        Args:
            pixels: Numbers in 0…255, `[n, height, width, 3]`.
            epochs: The number of augmented forms of each image.
            seed: The run's seed.

        Returns:
            Uint8 `[n · height, (1 + epochs) · width, 3]`: one row per image, with the
            original and then its form in each epoch.

        Example:

        ```python
        sheet = tlkit.data.Augmentation().show(images[:2])
        sheet.shape  # TensorShape([448, 1568, 3])
        ```
        """
        rows = []
        for index, image in enumerate(tf.cast(pixels, tf.float32)):
            seeds = [example_seed(seed, epoch, index) for epoch in range(epochs)]
            changed = [self.example(image, each) for each in seeds]
            rows.append(tf.concat([image, *changed], axis=1))
        sheet = tf.clip_by_value(tf.round(tf.concat(rows, axis=0)), 0, 255)
        return tf.cast(sheet, tf.uint8)

    def to_config(self) -> dict[str, Any]:
        """Returns a dict from which `Augmentation(**config)` restores this object."""
        return dataclasses.asdict(self)


@functools.lru_cache(maxsize=32)
def _traced(augmentation: Augmentation, crop: bool) -> Callable:
    # Cached, so that the data sets of all epochs share one graph.
    change = functools.partial(_changed, augmentation, crop=crop)
    return tf.function(change, autograph=False, reduce_retracing=True)


def _changed(augmentation: Augmentation, pixels, seed, *, crop: bool) -> tf.Tensor:
    part = functools.partial(part_seed, seed)
    if augmentation.crop is not None and crop:
        height, width = tf.unstack(tf.shape(pixels)[:2])
        window = augmentation.window(seed, height=height, width=width)
        pixels = geometry.crop(pixels, window)
    if augmentation.flip is not None:
        pixels = geometry.random_flip(pixels, part(_FLIP), direction=augmentation.flip)
    if augmentation.rand_augment is not None:
        operations, magnitude = augmentation.rand_augment
        pixels = rand_augment(
            pixels, part(_RAND_AUGMENT), operations=operations, magnitude=magnitude
        )
    if augmentation.color is not None:
        pixels = random_color(pixels, part(_COLOR), color=augmentation.color)
    if augmentation.erasing:
        pixels = geometry.random_erasing(
            pixels, part(_ERASING), probability=augmentation.erasing
        )
    return pixels


def _check_pixels(pixels: tf.Tensor) -> tf.Tensor:
    """Converts an image to a tensor, or raises a `DataError`."""
    pixels = tf.convert_to_tensor(pixels)
    shape = pixels.shape
    is_image = shape.rank == 3 and shape[-1] in (3, None)
    if pixels.dtype != tf.float32 or not is_image:
        raise DataError(
            "Augmentation takes images as float32 [height, width, 3] in 0…255; got "
            f"{pixels.dtype.name} {shape}. Type: tf.cast(pixels, tf.float32)"
        )
    return pixels


def _check_crop(crop) -> tuple[float, float] | None:
    """Converts the argument `crop`, or raises a `DataError`."""
    if crop is None:
        return None
    pair = _pair(crop)
    if pair is None or not 0 < pair[0] <= pair[1] <= 1:
        raise DataError(
            "crop must be the smallest and the largest fraction of an image's area, "
            f"above 0 and up to 1, or None; got {crop!r}. Type: crop=(0.6, 1.0)"
        )
    return float(pair[0]), float(pair[1])


def _check_rand_augment(value) -> tuple[int, float] | None:
    """Converts the argument `rand_augment`, or raises a `DataError`."""
    if value is None:
        return None
    pair = _pair(value)
    if (
        pair is None
        or not isinstance(pair[0], numbers.Integral)
        or pair[0] < 1
        or not 0 <= pair[1] <= MAX_MAGNITUDE
    ):
        raise DataError(
            "rand_augment must be the number of operations, 1 or more, and their "
            f"magnitude, from 0 to {MAX_MAGNITUDE}, or None; got {value!r}. "
            "Type: rand_augment=(2, 9)"
        )
    return int(pair[0]), float(pair[1])


def _pair(values) -> tuple | None:
    if not isinstance(values, tuple | list) or len(values) != 2:
        return None
    return tuple(values) if all(_is_number(value) for value in values) else None


def _check_alpha(name: str, alpha) -> None:
    """Raises a `DataError` if a value is not a parameter of a beta distribution."""
    if not _is_number(alpha) or not 0 <= alpha < float("inf"):
        raise DataError(
            f"{name} must be 0 (off) or a positive number, the alpha of the beta "
            f"distribution; got {alpha!r}. Type: {name}=0.2"
        )


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
