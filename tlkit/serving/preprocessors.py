"""A text encoder's preprocessor as a SavedModel of its own, in TF Hub's form.

https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable

import tensorflow as tf

from ..encoders import Encoder
from ..errors import import_extra
from ..models.text.packer import Packing
from ..models.text.text_preprocessors import WordPiecePreprocessor
from ..models.text.truncation import keep
from ..sources import resolve

_SPECIAL = ("[CLS]", "[SEP]")


def preprocessor_writer(
    encoder: Encoder, *, verbose: int = 1
) -> Callable[[pathlib.Path], None] | None:
    """What writes an encoder's preprocessor into a folder.

    Args:
        encoder: The encoder.
        verbose: 0 is silent, 1 shows progress where it has to be fetched.

    Returns:
        A function of the folder; `None` where no preprocessor is known, or none is
        needed, since the encoder takes pictures or strings.

    Raises:
        SourceError: The preprocessor could not be fetched.
    """
    details = encoder.details
    words = _word_pieces(encoder)
    if words is not None:
        return lambda folder: _write(words, folder)
    if details.get("preprocessor"):
        found = resolve(details["preprocessor"], verbose=verbose).path
        return lambda folder: _copy(found, folder)
    return None


def _word_pieces(encoder: Encoder) -> WordPiecePreprocessor | None:
    """That of an encoder with BERT's vocabulary and inputs."""
    details = encoder.details
    vocabulary = tuple(details.get("vocabulary") or ())
    if not {*_SPECIAL, "[PAD]"} <= set(vocabulary):
        return None
    packing = Packing.of(details, pairs=False, windows=1, overlap=0)
    packing = dataclasses.replace(packing, fixed_length=True)
    words = WordPiecePreprocessor(vocabulary, details["lower_case"], packing)
    inputs = encoder.inputs_spec
    fitting = isinstance(inputs, dict) and set(inputs) == set(words.names)
    return words if fitting else None


def _copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _write(words: WordPiecePreprocessor, folder: pathlib.Path) -> None:
    module = _Preprocessor(words)
    for segments in (1, 2):
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        length = tf.TensorSpec([], tf.int32)
        module.bert_pack_inputs.get_concrete_function([ragged] * segments, length)
    tf.saved_model.save(module, str(folder))


class _Preprocessor(tf.Module):
    """Texts `[n]` to int32 `[n, length]` of each of the encoder's inputs.

    And as TF Hub's have it, the same in two steps for pairs of texts and for other
    lengths: `bert_pack_inputs([tokenize(texts), …], seq_length)`.
    """

    def __init__(self, words: WordPiecePreprocessor):
        super().__init__(name="preprocessor")
        text = import_extra("tensorflow_text", "text", "a text encoder's preprocessor")
        packing, texts = words.packing, tf.TensorSpec([None], tf.string)
        special = [words.vocabulary.index(piece) for piece in _SPECIAL]
        tokenizer = text.FastBertTokenizer(
            vocab=list(words.vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=words.lower_case,
        )

        def pack(inputs, seq_length=packing.length):
            count = seq_length - 1 - len(inputs)
            if len(inputs) == 1:
                segments = [keep(*inputs, count, packing.truncation)]
            else:  # the longer one loses tokens, at its end
                segments = text.RoundRobinTrimmer(count).trim(list(inputs))
            ids, types = text.combine_segments(segments, *special)
            rows = (ids, tf.ones_like(ids), types)
            return words.pad(dict(zip(words.names, rows, strict=True)), seq_length)

        # AutoGraph cannot convert what is cached, and has nothing to do here.
        self.__call__ = tf.function(words, input_signature=[texts], autograph=False)
        self.tokenize = tf.function(
            tokenizer.tokenize, input_signature=[texts], autograph=False
        )
        self.bert_pack_inputs = tf.function(pack, autograph=False)
