"""From raw examples to a model's inputs, with the same code in training and serving."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import tensorflow as tf

from ..encoders import find_encoder, is_trusted
from ..errors import EncoderError
from .pictures import ImagePreprocessor
from .text.packer import Packing
from .text.text_preprocessors import SavedPreprocessor, WordPiecePreprocessor


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
    encoder = find_encoder(model)
    if encoder is None:
        return None
    details = encoder.details
    if details.get("kind") == "image":
        height, width = model.input_shape[1:3]
        return ImagePreprocessor(height, width)
    if details.get("kind") == "text":
        return _text_preprocessor(model, details, fixed_length)
    return Unchanged()


def _text_preprocessor(
    model: keras.Model, details: dict[str, Any], fixed_length: bool
) -> Preprocessor:
    inputs = model.input
    if not isinstance(inputs, dict):
        return Unchanged()
    packing = Packing.of(details, fixed_length=fixed_length)
    tokens = {x.shape[1] for x in inputs.values() if len(x.shape) == 2}
    if len(tokens) == 1 and tokens != {None}:
        # An encoder that was saved for one length takes no other.
        packing = dataclasses.replace(packing, length=tokens.pop(), fixed_length=True)
    if details.get("vocabulary"):
        _check_inputs(inputs)
        vocabulary = tuple(details["vocabulary"])
        return WordPiecePreprocessor(vocabulary, details["lower_case"], packing)
    if details.get("preprocessor"):
        return _saved(details["preprocessor"], packing)
    raise EncoderError(
        f"The encoder {details.get('name')!r} brings no vocabulary, and no "
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
