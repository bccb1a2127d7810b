"""Turns raw examples into a model's inputs, in training and in serving."""

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
    """Decodes and resizes an image.

    Args:
        height: Height of the model's input in pixels.
        width: Width of the model's input in pixels.
    """

    height: int
    width: int
    per_example = True

    # AutoGraph has nothing to convert here, but would need half a second to notice.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, raw: tf.Tensor) -> tf.Tensor:
        """Returns float32 `[height, width, 3]` in 0…255.

        Args:
            raw: A string with an encoded JPEG, PNG, GIF or WebP (their first frames) or
                BMP, or numbers in 0…255, `[h, w]`, `[h, w, 1]` or `[h, w, 3]`.
        """
        return self._prepared(raw, None)

    @tf.autograph.experimental.do_not_convert
    def cropped(self, raw: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        """Returns a crop of the image, resized as `__call__` resizes the whole image.

        Only the crop of a JPEG is decoded.

        Args:
            raw: See `__call__`.
            window: float32 `[4]`: `(y, x, height, width)` of the crop as fractions of
                the upright image, in 0…1. `(0, 0, 1, 1)` is the whole image.
        """
        return self._prepared(raw, tf.convert_to_tensor(window, tf.float32))

    def batch(self, raws: tf.Tensor) -> tf.Tensor:
        """Returns float32 `[batch, height, width, 3]` for a batch of raw examples."""
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
    """Returns raw examples unchanged, for encoders with inputs such as strings."""

    per_example = False

    def __call__(self, raws: tf.Tensor) -> tf.Tensor:
        return raws

    def batch(self, raws: tf.Tensor) -> tf.Tensor:
        return raws


Preprocessor = ImagePreprocessor | WordPiecePreprocessor | SavedPreprocessor | Unchanged


def preprocessing(
    model: keras.Model, *, fixed_length: bool = False
) -> Preprocessor | None:
    """Returns the function from raw examples to a model's inputs.

    Args:
        model: A model that `tlkit` built, also if saved and loaded since.
        fixed_length: Whether all texts are padded to the maximum number of tokens,
            instead of to the longest of their batch. XLA, and so a TPU, compiles a
            program for every length.

    Returns:
        A callable with an attribute `per_example`: if `True`, its argument is one raw
        example, else a batch of them. The argument of its method `batch` is always a
        batch. `None` for a model without an encoder.
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
        # An encoder that was saved for one length accepts no other.
        packing = dataclasses.replace(packing, length=tokens.pop(), fixed_length=True)
    if facts.vocabulary:
        _check_inputs(inputs)
        return WordPiecePreprocessor(facts.vocabulary, facts.lower_case, packing)
    if facts.preprocessor:
        return _saved(facts.preprocessor, packing)
    raise EncoderError(
        f"The encoder {facts.name!r} has no vocabulary and no known preprocessor. Pass "
        "one: tlkit.text_classifier(source, labels, preprocessor=folder_or_handle)."
    )


def _check_inputs(inputs) -> None:
    expected = ("input_word_ids", "input_mask", "input_type_ids")
    if set(inputs) != set(expected):
        raise EncoderError(
            f"The inputs of a text encoder are {', '.join(expected)}. Those of this "
            f"one have other names: {', '.join(sorted(inputs))}."
        )


@functools.lru_cache(maxsize=4)
def _saved(source: str, packing: Packing) -> SavedPreprocessor:
    return SavedPreprocessor(source, packing, trust=is_trusted(source))
