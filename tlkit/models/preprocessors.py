"""From raw examples to a model's inputs, with the same code in training and serving.

From an encoded picture to pixels, with the same code in training and serving.
"""

from __future__ import annotations

import dataclasses
import functools

import keras
import tensorflow as tf

from ..data.images import crop, decode, resize
from ..encoders import EncoderFacts, find_encoder, is_trusted
from ..errors import EncoderError
from .model_options import facts_of, packing_of
from .text.packer import Packing
from .text.text_preprocessors import SavedPreprocessor, WordPiecePreprocessor


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


class Unchanged:
    """For encoders that take what the data holds, such as strings."""

    per_example = False

    def __call__(self, raws: tf.Tensor) -> tf.Tensor:
        return raws

    def batch(self, raws: tf.Tensor) -> tf.Tensor:
        return raws


Preprocessor = ImagePreprocessor | WordPiecePreprocessor | SavedPreprocessor | Unchanged


def preprocessing(
    model: keras.Model, *, fixed_length: bool = False
) -> Preprocessor | None:
    """What turns raw examples into a model's inputs.

    Args:
        model: A model that `tlkit` built; it may have been saved and loaded since.
        fixed_length: Whether all texts are padded to the most tokens that the model
            takes, instead of to the longest of their batch. XLA, and so a TPU, compiles
            anew for every length.

    Returns:
        A callable with an attribute `per_example`: `True` where it takes one raw
        example, `False` where it takes a batch of them; its method `batch` takes a
        batch in either case. `None` for other models.
    """
    if find_encoder(model) is None:
        return None
    facts = facts_of(model)
    if facts.kind == "image":
        height, width = model.input_shape[1:3]
        return ImagePreprocessor(height, width)
    if facts.kind == "text":
        return _text_preprocessor(model, facts, fixed_length)
    return Unchanged()


def _text_preprocessor(
    model: keras.Model, facts: EncoderFacts, fixed_length: bool
) -> Preprocessor:
    inputs = model.input
    if not isinstance(inputs, dict):
        return Unchanged()
    packing = dataclasses.replace(packing_of(model), fixed_length=fixed_length)
    tokens = {x.shape[1] for x in inputs.values() if len(x.shape) == 2}
    if len(tokens) == 1 and tokens != {None}:
        # An encoder that was saved for one length takes no other.
        packing = dataclasses.replace(packing, length=tokens.pop(), fixed_length=True)
    if facts.vocabulary:
        _check_inputs(inputs)
        return WordPiecePreprocessor(facts.vocabulary, facts.lower_case, packing)
    if facts.preprocessor:
        return _saved(facts.preprocessor, packing)
    raise EncoderError(
        f"The encoder {facts.name!r} brings no vocabulary, and no "
        "preprocessor is known for it. Give one: tlkit.text_classifier(source, labels, "
        "preprocessor=folder_or_handle)."
    )


def _check_inputs(inputs) -> None:
    expected = ("input_word_ids", "input_mask", "input_type_ids")
    if set(inputs) != set(expected):
        raise EncoderError(
            f"A text encoder takes {', '.join(expected)}. This one takes "
            f"{', '.join(sorted(inputs))}, and nothing says which is which."
        )


@functools.lru_cache(maxsize=4)
def _saved(source: str, packing: Packing) -> SavedPreprocessor:
    return SavedPreprocessor(source, packing, trust=is_trusted(source))
