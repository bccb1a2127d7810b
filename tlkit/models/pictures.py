"""From an encoded picture to pixels, with the same code in training and serving."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ..data.images.decoder import decode
from ..data.images.resize import crop, resize


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

    # AutoGraph has nothing to convert here, and takes half a second to find that out.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        """Gives float32 `[height, width, 3]` in 0…255.

        Args:
            raw: A string with an encoded JPEG, PNG, GIF or WebP (their first frames) or
                BMP, or numbers in 0…255, `[h, w]`, `[h, w, 1]` or `[h, w, 3]`.
        """
        return self._prepared(raw, None)

    @tf.autograph.experimental.do_not_convert
    def cropped(self, raw: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        """Gives a part of the picture as `__call__` gives the whole.

        Of a JPEG, only the part is decoded.

        Args:
            raw: As in `__call__`.
            window: float32 `[4]`: `(y, x, height, width)` of the part in shares of the
                picture as it is seen, in 0…1. `(0, 0, 1, 1)` is all of it.
        """
        return self._prepared(raw, tf.convert_to_tensor(window, tf.float32))

    def batch(self, raws: tf.Tensor) -> tf.Tensor:
        """Gives float32 `[batch, height, width, 3]` of a batch of raw examples."""
        spec = tf.TensorSpec((self.height, self.width, 3), tf.float32)
        return tf.map_fn(self, raws, fn_output_signature=spec)

    def _prepared(self, raw: tf.Tensor, window: tf.Tensor | None) -> tf.Tensor:
        size = (self.height, self.width)
        raw = tf.convert_to_tensor(raw)
        if raw.dtype == tf.string:
            return decode(raw, size, window)
        image = raw[..., tf.newaxis] if raw.shape.rank == 2 else raw
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        image = resize(crop(tf.cast(image, tf.float32), window), size)
        return tf.ensure_shape(image, (*size, 3))
