"""RandAugment: a few operations out of fourteen, all at one magnitude.

"RandAugment: practical automated data augmentation with a reduced search space" (arXiv
1909.13719). `keras.layers.RandAugment` computes every operation for every image, and
uses a stateful generator. Here only the drawn operations are computed, from a seed.

Tested in tests/data/augmentation/test_augmented_pixels.py.
"""

import math

import tensorflow as tf

from . import color, geometry
from .example_seeds import integers, part_seed, uniform

MAX_MAGNITUDE = 10  # as in the paper


def rand_augment(
    pixels: tf.Tensor, seed: tf.Tensor, *, operations: int, magnitude: float
) -> tf.Tensor:
    """Applies several operations, each drawn independently from `OPERATIONS`.

    Args:
        pixels: Float32 `[height, width, 3]` in 0…255, like the result.
        seed: Int32 or int64 `[2]`.
        operations: The number of operations, applied one after the other.
        magnitude: The strength of the operations, from 0 to 10. It has no effect on
            `"none"`, `"autocontrast"` and `"equalize"`. At 0, the other operations
            change nothing.
    """
    seeds = part_seed(seed, 0), part_seed(seed, 1)
    choices = integers(seeds[0], (operations,), below=len(OPERATIONS))
    signs = tf.where(uniform(seeds[1], (operations,)) < 0.5, -1.0, 1.0)
    shape = pixels.shape

    def apply(number, pixels):
        changed = operation(
            pixels,
            choices[number],
            strength=magnitude / MAX_MAGNITUDE,
            sign=signs[number],
        )
        return number + 1, tf.ensure_shape(changed, shape)

    # In a loop, so that the graph contains the ops of each operation only once.
    return tf.while_loop(
        lambda number, _: number < operations,
        apply,
        (0, pixels),
        parallel_iterations=1,
    )[1]


# The operations that move pixels come last.
OPERATIONS = (
    *("none", "autocontrast", "equalize", "posterize", "solarize"),
    *("brighten", "contrast", "saturate", "sharpen"),
    *("rotate", "shear across", "shear down", "shift across", "shift down"),
)
_MOVES = OPERATIONS.index("rotate")
# The changes at the largest magnitude, as in torchvision and timm.
_FACTOR, _RADIANS, _SHEAR, _SHIFT = 0.9, math.radians(30), 0.3, 0.45


def operation(
    pixels: tf.Tensor, choice: int | tf.Tensor, *, strength: float, sign: tf.Tensor
) -> tf.Tensor:
    """Applies the operation with the index `choice` in `OPERATIONS`.

    The strength is from 0 to 1. The sign, -1.0 or 1.0, selects the direction, such as
    left or right, darker or lighter, of the operations that have two.
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
        lambda: geometry.project(pixels, _matrix(choice - _MOVES, strength * sign)),
    ]
    return tf.switch_case(tf.minimum(choice, _MOVES), branches)


def _matrix(move: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Returns the matrix of a rotation (0), a shear (1 and 2) or a shift (3 and 4)."""
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
    return tf.reshape(tf.convert_to_tensor(rows, tf.float32)[move], (2, 3))
