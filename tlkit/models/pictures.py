"""From an encoded picture to pixels, with the same code in training and serving."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ImagePreprocessor:
    """Decodes an encoded picture, or takes an array, and resizes it.

    Args:
        height: Of the model's input, in pixels.
        width: Of the model's input, in pixels.
    """

    height: int
    width: int
    per_example = True

    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        """Gives float32 `[height, width, 3]` in 0…255.

        Args:
            raw: A string with an encoded JPEG, PNG, GIF (first frame) or BMP, or
                numbers in 0…255, `[h, w]`, `[h, w, 1]` or `[h, w, 3]`.
        """
        if raw.dtype == tf.string:
            image = tf.io.decode_image(raw, channels=3, expand_animations=False)
        else:
            image = raw[..., tf.newaxis] if raw.shape.rank == 2 else raw
            if image.shape[-1] == 1:
                image = tf.image.grayscale_to_rgb(image)
        # Antialiased, or a large picture becomes noise where it is made small.
        size = (self.height, self.width)
        image = tf.image.resize(tf.cast(image, tf.float32), size, antialias=True)
        return tf.ensure_shape(image, (self.height, self.width, 3))

    def batch(self, raws: tf.Tensor) -> tf.Tensor:
        """Gives float32 `[batch, height, width, 3]` of a batch of raw examples."""
        spec = tf.TensorSpec((self.height, self.width, 3), tf.float32)
        return tf.map_fn(self, raws, fn_output_signature=spec)
