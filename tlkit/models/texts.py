"""From texts to token ids, with the same code in training and serving."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow as tf

from ..errors import EncoderError, import_extra


@dataclasses.dataclass(frozen=True)
class WordPiecePreprocessor:
    """Splits texts into word pieces and packs them, as BERT's own code does.

    Args:
        vocabulary: The word pieces in the order of their ids.
        lower_case: Whether to lower the case and to strip accents.
        length: The most tokens of a text, `[CLS]` and `[SEP]` counted in.
        names: Names of the ids', the mask's and the types' inputs.
        fixed_length: Whether all texts are padded to `length`.
    """

    vocabulary: tuple[str, ...]
    lower_case: bool
    length: int
    names: tuple[str, str, str] = ("input_word_ids", "input_mask", "input_type_ids")
    fixed_length: bool = False
    per_example = False

    def __call__(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives int32 `[batch, tokens]` of each input, of texts `[batch]`.

        Texts are padded to the longest of the batch, rounded up to a multiple of 16,
        or all to `length` where that is fixed.
        """
        pieces = _word_piece_tokenizer(self.vocabulary, self.lower_case).tokenize(raws)
        ids = tf.cast(pieces.merge_dims(1, -1), tf.int32)[:, : self.length - 2]
        ids = tf.concat(
            [self._column(ids, "[CLS]"), ids, self._column(ids, "[SEP]")], 1
        )
        tokens = self.length if self.fixed_length else self._longest(ids)
        mask = tf.sequence_mask(ids.row_lengths(), tokens, tf.int32)
        shape = tf.cast(tf.stack([-1, tokens]), tf.int64)
        padded = ids.to_tensor(self._id("[PAD]"), shape=shape)
        if self.fixed_length:
            padded, mask = (tf.ensure_shape(x, (None, tokens)) for x in (padded, mask))
        return dict(zip(self.names, (padded, mask, tf.zeros_like(mask)), strict=True))

    def batch(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        return self(raws)

    def _longest(self, ids: tf.RaggedTensor) -> tf.Tensor:
        longest = tf.cast(tf.reduce_max(ids.row_lengths()), tf.int32)
        return tf.minimum((longest + 15) // 16 * 16, self.length)

    def _id(self, piece: str) -> int:
        if piece not in self.vocabulary:
            raise EncoderError(
                f"The vocabulary has no {piece!r}, which BERT's packing needs. Give "
                "the encoder's own preprocessor as preprocessor=…"
            )
        return self.vocabulary.index(piece)

    def _column(self, like: tf.RaggedTensor, piece: str) -> tf.RaggedTensor:
        return tf.RaggedTensor.from_tensor(
            tf.fill((like.nrows(), 1), tf.constant(self._id(piece), tf.int32))
        )


@functools.lru_cache(maxsize=4)
def _word_piece_tokenizer(vocabulary: tuple[str, ...], lower_case: bool):
    text = import_extra("tensorflow_text", "text", "a text encoder")
    # Its model stands in the graph as a constant, so an export has no asset file. It is
    # kept for later graphs, so it may not be made inside one.
    with tf.init_scope():
        return text.FastBertTokenizer(
            vocab=list(vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=lower_case,
        )


class SavedPreprocessor:
    """Calls a published preprocessor: a SavedModel from strings to token ids.

    Args:
        source: Where it is, as `tlkit.load_encoder` takes it.
        length: The most tokens of a text.
        fixed_length: Whether all texts come out with as many tokens: `length`, or what
            the module itself always gives.
    """

    per_example = False

    def __init__(self, source: str, length: int, fixed_length: bool = False):
        from ..encoders.reading import read_saved_model
        from ..sources import resolve

        self.source, self.length = source, length
        self.fixed_length = fixed_length
        self.module = read_saved_model(resolve(source).path).module
        # Only modules with these two can pack to another length than their own.
        self.packs = all(
            hasattr(self.module, name) for name in ("tokenize", "bert_pack_inputs")
        )

    def __call__(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives int32 `[batch, length]` of each of the encoder's inputs."""
        if self.packs:
            tokens = self.module.tokenize(raws)
            made = self.module.bert_pack_inputs([tokens], tf.constant(self.length))
        else:
            made = self.module(raws)
        return tf.nest.map_structure(self._fixed, made) if self.fixed_length else made

    def _fixed(self, tokens: tf.Tensor) -> tf.Tensor:
        """Cut or padded to the length, unless the module says how long it always is."""
        if tokens.shape.rank == 2 and tokens.shape[1] is not None:
            return tokens
        cut = tokens[:, : self.length]
        cut = tf.pad(cut, [[0, 0], [0, self.length - tf.shape(cut)[1]]])
        return tf.ensure_shape(cut, (None, self.length))

    def batch(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        return self(raws)
