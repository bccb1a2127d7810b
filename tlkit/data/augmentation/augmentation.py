"""Random changes to pictures, so that a model does not see the same ones again.

What the arguments of an augmentation may be.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...errors import DataError
from . import geometry
from . import mixup as blending
from .color import Color, as_color, check_share, random_color
from .example_seeds import example_seed, part_seed
from .rand_augment import MOST, rand_augment

_FLIPS = ("horizontal", "vertical", "both")
# Of a window that is cropped: least and largest width over height.
_ASPECT = (3 / 4, 4 / 3)
# Which part of a seed is whose. What is added gets a new number.
_CROP, _FLIP, _RAND_AUGMENT, _COLOR, _ERASING, _WHICH, _BLEND = range(7)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to the pictures that a model is trained on.

    Without arguments it is mild: pictures are cropped a little and mirrored. The steps
    come in the order of the arguments. What happens to an example depends on the seed,
    the epoch and its place in the data alone: not on the order of the batches, how many
    are prepared at once, or where a run was resumed.

    Args:
        crop: The least and the largest share of a picture that is cut out and made as
            large as the picture was, in (0, 1], with a width over height of 3/4 to 4/3;
            or `None`.
        flip: `"horizontal"`, `"vertical"` or `"both"`: every second picture is
            mirrored; or `None`, for what must not be, such as letters.
        rand_augment: How many operations of RandAugment are applied, and how strongly,
            from 0 to 10, such as `(2, 9)`; or `None`.
        color: How far brightness, contrast and saturation may change, from 0 to 1, such
            as 0.2; or a `Color`, or a dict of its arguments; or `None`.
        erasing: How likely a window of a picture is filled with noise, from 0 to 1.
        mix_up: The alpha of MixUp, such as 0.2: pictures are blended, and their labels;
            or 0.
        cut_mix: The alpha of CutMix, such as 1: windows of pictures are exchanged, and
            shares of their labels; or 0. With both, half of the batches have either.

    Raises:
        DataError: An argument is not what it should be.

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
        changed = {
            "crop": check_crop(self.crop),
            "rand_augment": check_rand_augment(self.rand_augment),
            "color": as_color(self.color),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)
        check_share("erasing", self.erasing)
        for name in ("mix_up", "cut_mix"):
            check_alpha(name, getattr(self, name))

    @property
    def changes_examples(self) -> bool:
        """Whether `example` does anything."""
        parts = (self.crop, self.flip, self.rand_augment, self.color, self.erasing)
        return any(parts)

    @property
    def blends(self) -> bool:
        """Whether `batch` does anything; labels are float32 `[batch, classes]` then."""
        return bool(self.mix_up or self.cut_mix)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing happens at all."""
        return not self.changes_examples and not self.blends

    def window(
        self, seed: tf.Tensor, *, height: int | tf.Tensor, width: int | tf.Tensor
    ) -> tf.Tensor:
        """The window that is cropped out of an example.

        For those who decode no more than that of a file, and call `example` with
        `crop=False` then.

        Args:
            seed: Int32 or int64 `[2]`, as `example_seed` gives it.
            height: Of the picture, in pixels.
            width: Of the picture, in pixels.

        Returns:
            Float32 `[4]`: top, left, height and width, as shares of the picture's;
            without `crop` all of it.
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
        """Changes one picture.

        Args:
            pixels: Float32 `[height, width, 3]` in 0…255.
            seed: Int32 or int64 `[2]`, as `example_seed` gives it.
            crop: Whether to crop, if the augmentation does; `False` if that is done.

        Returns:
            Float32 of the same shape, in 0…255.

        Raises:
            DataError: The picture has another dtype or shape.
        """
        pixels = check_pixels(pixels)
        if not self.changes_examples:
            return pixels
        found = _traced(self, crop)(pixels, seed)
        return tf.ensure_shape(found, pixels.shape)

    def batch(
        self,
        pixels: tf.Tensor,
        labels: tf.Tensor,
        *,
        seed: tf.Tensor,
        classes: int,
        weights: tf.Tensor | None = None,
    ) -> blending.Blended:
        """Blends the examples of one batch, with MixUp or CutMix.

        Args:
            pixels: Float32 `[batch, height, width, 3]`.
            labels: Integers `[batch]`, or float32 `[batch, classes]`.
            seed: Int32 or int64 `[2]`, as `batch_seed` gives it.
            classes: How many classes there are.
            weights: Float32 `[batch]`, or `None` if every example counts as one.

        Returns:
            Pixels, labels and weights. If the augmentation blends, labels are float32
            `[batch, classes]` and sum to 1, and weights are those of the blended
            examples; a loss that is linear in the labels, such as cross entropy, is
            that of both examples by share and weight. Otherwise all is as it came.

        Raises:
            DataError: The labels are not those of classes.
        """
        if not self.blends:
            return pixels, labels, weights
        blend = functools.partial(
            _blend,
            pixels,
            blending.one_hot(labels, classes),
            weights=weights,
            seed=part_seed(seed, _BLEND),
        )
        alphas = {blending.mix_up: self.mix_up, blending.cut_mix: self.cut_mix}
        ways = [
            functools.partial(blend, way, alpha)
            for way, alpha in alphas.items()
            if alpha
        ]
        return blending.either(part_seed(seed, _WHICH), *ways)

    def show(self, pixels: Any, *, epochs: int = 6, seed: int = 0) -> tf.Tensor:
        """A sheet of pictures as they come out, to be looked at.

        Args:
            pixels: Numbers in 0…255, `[n, height, width, 3]`.
            epochs: How many times each is changed.
            seed: As in training.

        Returns:
            Uint8 `[n · height, (1 + epochs) · width, 3]`: a row for each picture, first
            as it is and then as each epoch sees it.

        Example:

        ```python
        sheet = tlkit.data.Augmentation().show(images[:2])
        sheet.shape  # TensorShape([448, 1568, 3])
        ```
        """
        rows = []
        for index, picture in enumerate(tf.cast(pixels, tf.float32)):
            seeds = [example_seed(seed, epoch, index) for epoch in range(epochs)]
            changed = [self.example(picture, each) for each in seeds]
            rows.append(tf.concat([picture, *changed], axis=1))
        sheet = tf.clip_by_value(tf.round(tf.concat(rows, axis=0)), 0, 255)
        return tf.cast(sheet, tf.uint8)

    def to_config(self) -> dict[str, Any]:
        """A dict of plain values that makes the same one: `Augmentation(**config)`."""
        return dataclasses.asdict(self)


@functools.lru_cache(maxsize=32)
def _traced(augmentation: Augmentation, crop: bool) -> Callable:
    # Every epoch makes a dataset, and needs no graph of its own.
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
        own = part(_RAND_AUGMENT)
        pixels = rand_augment(pixels, own, operations=operations, magnitude=magnitude)
    if augmentation.color is not None:
        pixels = random_color(pixels, part(_COLOR), color=augmentation.color)
    if augmentation.erasing:
        pixels = geometry.random_erasing(
            pixels, part(_ERASING), probability=augmentation.erasing
        )
    return pixels


def _blend(pixels, labels, way, alpha, *, weights, seed) -> blending.Blended:
    return way(pixels, labels, weights=weights, seed=seed, alpha=alpha)


# === Augmentation checks ===


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
