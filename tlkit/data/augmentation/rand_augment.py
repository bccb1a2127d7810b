"""RandAugment: a few operations out of fourteen, all at one magnitude.

"RandAugment: practical automated data augmentation with a reduced search space" (arXiv
1909.13719). `keras.layers.RandAugment` computes each of its operations for every
picture, and draws from a generator that counts; here one branch is run for each.
"""

from __future__ import annotations

import math

import tensorflow as tf

from . import color, geometry
from .example_seeds import integers, part_seed, uniform

MOST = 10  # the paper's largest magnitude


def rand_augment(
    pixels: tf.Tensor, seed: tf.Tensor, *, operations: int, magnitude: float
) -> tf.Tensor:
    """Applies some operations, each drawn anew from all of them.

    Args:
        pixels: Float32 `[height, width, 3]` in 0…255.
        seed: Int32 or int64 `[2]`.
        operations: How many are applied, one after the other.
        magnitude: How strongly, from 0 to 10. Three operations know no magnitude: none
            at all, autocontrast and equalize. With 0 the others do nothing.

    Returns:
        Float32 of the same shape, in 0…255.
    """
    seeds = part_seed(seed, 0), part_seed(seed, 1)
    choices = integers(seeds[0], (operations,), below=len(OPERATIONS))
    signs = tf.where(uniform(seeds[1], (operations,)) < 0.5, -1.0, 1.0)
    shape = pixels.shape

    def one(number, pixels):
        changed = operation(
            pixels, choices[number], strength=magnitude / MOST, sign=signs[number]
        )
        return number + 1, tf.ensure_shape(changed, shape)

    # In a loop, so that there is one graph of all operations and not several.
    return tf.while_loop(
        lambda number, _: number < operations,
        one,
        (0, pixels),
        parallel_iterations=1,
    )[1]


# Those that move pixels come last.
OPERATIONS = (
    *("none", "autocontrast", "equalize", "posterize", "solarize"),
    *("brighten", "contrast", "saturate", "sharpen"),
    *("rotate", "shear across", "shear down", "shift across", "shift down"),
)
_MOVES = OPERATIONS.index("rotate")  # from here on pixels are moved
# At the largest magnitude; as torchvision and timm have them, too.
_FACTOR, _RADIANS, _SHEAR, _SHIFT = 0.9, math.radians(30), 0.3, 0.45


def operation(
    pixels: tf.Tensor, choice: int | tf.Tensor, *, strength: float, sign: tf.Tensor
) -> tf.Tensor:
    """Applies one of the operations.

    Args:
        pixels: Float32 `[height, width, 3]` in 0…255.
        choice: Its place in `OPERATIONS`.
        strength: From 0 to 1, the largest magnitude.
        sign: -1.0 or 1.0: to the left or right, darker or lighter, where it has any.

    Returns:
        Float32 of the same shape, in 0…255.
    """
    bits = 8 - round(4 * strength)
    factor = 1 + sign * (strength * _FACTOR)
    branches = [
        lambda: tf.identity(pixels),
        lambda: color.stretch_contrast(pixels),
        lambda: color.equalize(pixels),
        lambda: color.posterize(pixels, bits) if bits < 8 else tf.identity(pixels),
        lambda: color.solarize(pixels, 256 * (1 - strength)),
        lambda: color.brighten(pixels, factor),
        lambda: color.contrast(pixels, factor),
        lambda: color.saturate(pixels, factor),
        lambda: color.sharpen(pixels, factor),
        lambda: geometry.project(pixels, _move(choice - _MOVES, strength * sign)),
    ]
    return tf.switch_case(tf.minimum(choice, _MOVES), branches)


def _move(which: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """The matrix of rotating, of shearing in two directions, or shifting in two."""
    angle = strength * _RADIANS
    cosine, sine = tf.cos(angle), tf.sin(angle)
    sheared, shifted = strength * _SHEAR, strength * _SHIFT
    rows = [
        [cosine, -sine, 0, sine, cosine, 0],
        [1, sheared, 0, 0, 1, 0],
        [1, 0, 0, sheared, 1, 0],
        [1, 0, shifted, 0, 1, 0],
        [1, 0, 0, 0, 1, shifted],
    ]
    return tf.reshape(tf.convert_to_tensor(rows, tf.float32)[which], (2, 3))
