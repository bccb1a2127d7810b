"""From texts to token ids, with the same code in training and serving."""

from __future__ import annotations

import dataclasses
import functools

import tensorflow as tf

from ...errors import EncoderError, import_extra
from .packer import Packing
from .windows import join

Rows = dict[str, tf.RaggedTensor]

# What TF Hub's preprocessors call the input that is 1 where there is a token.
_MASK = "input_mask"


class TextPreprocessor:
    """Texts become rows of tokens, and rows become inputs of one of a few lengths.

    Attributes:
        packing: How texts become rows.
    """

    per_example = False
    packing: Packing

    def tokenize(self, raws: tf.Tensor) -> Rows | None:
        """Makes int32 rows `[n, (tokens)]` of each input, none of them padded.

        Args:
            raws: Strings `[n]`, or `[n, 2]` for pairs of texts.

        Returns:
            Rows by the name of the input, not longer than the last of `lengths`; `None`
            if the preprocessor cannot say where a text ends.
        """
        raise NotImplementedError

    def padding(self, name: str) -> int:
        """What an input is padded with."""
        raise NotImplementedError

    @property
    def lengths(self) -> tuple[int, ...]:
        """The few lengths that texts are padded to, ascending."""
        return self.packing.lengths

    def padded_length(self, longest: int | tf.Tensor) -> int | tf.Tensor:
        """The smallest of `lengths` that holds so many tokens."""
        return self.packing.padded_length(longest)

    def pad(self, rows: Rows, tokens: int | tf.Tensor) -> dict[str, tf.Tensor]:
        """Pads rows to int32 `[n, tokens]` of each input."""
        shape = tf.cast(tf.stack([-1, tokens]), tf.int64)
        padded = {
            name: row.to_tensor(self.padding(name), shape=shape)
            for name, row in rows.items()
        }
        if tf.is_tensor(tokens):
            return padded
        return {k: tf.ensure_shape(x, (None, tokens)) for k, x in padded.items()}

    def __call__(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives int32 `[n, tokens]` of each input, of texts `[n]` or pairs `[n, 2]`.

        Texts are padded to the smallest of `lengths` that the longest of them fits in.
        """
        rows = self.tokenize(raws)
        if self.packing.fixed_length:
            return self.pad(rows, self.lengths[-1])
        longest = tf.reduce_max(next(iter(rows.values())).row_lengths())
        return self.pad(rows, self.padded_length(tf.cast(longest, tf.int32)))

    def batch(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        return self(raws)

    def to_longest(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same, padded to the longest of them only, up to one window.

        For a server that does not compile for every length: a single short text then
        costs what it has to.
        """
        rows = self.tokenize(raws)
        if rows is None or self.packing.fixed_length:
            return self(raws)
        longest = tf.reduce_max(next(iter(rows.values())).row_lengths())
        longest = tf.maximum(tf.cast(longest, tf.int32), 1)  # of no texts, too
        fits = longest <= self.packing.length
        return self.pad(rows, tf.where(fits, longest, self.padded_length(longest)))


@dataclasses.dataclass(frozen=True)
class WordPiecePreprocessor(TextPreprocessor):
    """Splits texts into word pieces and packs them, as BERT's own code does.

    Args:
        vocabulary: The word pieces in the order of their ids.
        lower_case: Whether to lower the case and to strip accents.
        packing: How long rows are, and what is in them.
        names: Names of the ids', the mask's and the types' inputs.
    """

    vocabulary: tuple[str, ...]
    lower_case: bool
    packing: Packing
    names: tuple[str, str, str] = ("input_word_ids", "input_mask", "input_type_ids")

    def tokenize(self, raws: tf.Tensor) -> Rows:
        text = _tensorflow_text()
        tokenizer = _word_piece_tokenizer(self.vocabulary, self.lower_case)
        segments, counts = self.packing.tokens(tokenizer.tokenize, raws)
        begin, end = self._special["[CLS]"], self._special["[SEP]"]
        ids, types = text.combine_segments(segments, begin, end)
        if counts is not None:
            ids, types = join(ids, counts), join(types, counts)
        return dict(zip(self.names, (ids, tf.ones_like(ids), types), strict=True))

    def padding(self, name: str) -> int:
        return self._special["[PAD]"] if name == self.names[0] else 0

    @functools.cached_property
    def _special(self) -> dict[str, int]:
        pieces = ("[CLS]", "[SEP]", "[PAD]")
        for piece in pieces:
            if piece not in self.vocabulary:
                raise EncoderError(
                    f"The vocabulary has no {piece!r}, which BERT's packing needs. "
                    "Give the encoder's own preprocessor as preprocessor=…"
                )
        return {piece: self.vocabulary.index(piece) for piece in pieces}


# Cached functions are left alone by AutoGraph, which cannot convert an import.
@functools.lru_cache
def _tensorflow_text():
    return import_extra("tensorflow_text", "text", "a text encoder")


@functools.lru_cache(maxsize=4)
def _word_piece_tokenizer(vocabulary: tuple[str, ...], lower_case: bool):
    # Its model stands in the graph as a constant, so an export has no asset file. It is
    # kept for later graphs, so it may not be made inside one.
    with tf.init_scope():
        return _tensorflow_text().FastBertTokenizer(
            vocab=list(vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=lower_case,
        )


class SavedPreprocessor(TextPreprocessor):
    """Calls a published preprocessor: a SavedModel from strings to token ids.

    Args:
        source: Where it is, as `tlkit.load_encoder` takes it.
        packing: How long rows are, and what is in them. A module that always gives
            another number of tokens keeps it.
        trust: As `tlkit.load_encoder` takes it.

    Raises:
        SourceError: The module was not found, or does more than compute and is not
            trusted.
        EncoderError: The module only takes single texts and cuts them by itself, and
            something else is asked for.
    """

    def __init__(self, source: str, packing: Packing, *, trust: bool = False):
        from ...encoders.saved_model import read_saved_model
        from ...sources import resolve

        self.source, self.packing = source, packing
        self.module = read_saved_model(resolve(source).path, trust=trust).module
        # Only modules with these two can pack to another length than their own.
        self.packs = all(
            hasattr(self.module, name) for name in ("tokenize", "bert_pack_inputs")
        )
        own = dataclasses.replace(packing, length=5, overlap=0, fixed_length=False)
        if not self.packs and own != Packing(length=5):
            raise EncoderError(
                f"The preprocessor {source!r} has no tokenize and bert_pack_inputs, so "
                "it takes single texts and cuts them in its own way only. Leave pairs, "
                "truncation and windows out."
            )
        self._padding = self._learn_padding()

    def tokenize(self, raws: tf.Tensor) -> Rows | None:
        if self._padding is None:
            return None
        made, counts = self._made(raws)
        lengths = tf.minimum(tf.reduce_sum(made[_MASK], axis=1), self.packing.length)
        rows = {
            name: tf.RaggedTensor.from_tensor(made[name], lengths)
            for name in self._padding
        }
        if counts is None:
            return rows
        return {name: join(row, counts) for name, row in rows.items()}

    def padding(self, name: str) -> int:
        return self._padding[name]

    def __call__(self, raws: tf.Tensor):
        return self._made(raws)[0] if self._padding is None else super().__call__(raws)

    def _made(self, raws: tf.Tensor):
        """What the module gives, padded in its own way, and each text's windows."""
        packing = self.packing
        if not self.packs:
            return self.module(*packing.segments(raws)), None
        if packing.truncation == "head" and packing.windows == 1:
            # The module cuts as it was made to.
            segments = [self.module.tokenize(x) for x in packing.segments(raws)]
            counts = None
        else:
            segments, counts = packing.tokens(self._tokens, raws, parts=False)
        length = tf.constant(packing.length)
        return self.module.bert_pack_inputs(segments, length), counts

    def _tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        tokens = self.module.tokenize(texts)
        return tokens.merge_dims(1, -1) if tokens.shape.rank > 2 else tokens

    def _learn_padding(self) -> dict[str, int] | None:
        """What each input is padded with, if it can be told where texts end."""
        spec = tf.TensorSpec((None, 2) if self.packing.pairs else (None,), tf.string)
        traced = tf.function(lambda raws: self._made(raws)[0])
        made = traced.get_concrete_function(spec).structured_outputs
        if not isinstance(made, dict) or any(x.shape.rank != 2 for x in made.values()):
            return None
        if _MASK not in made:
            return None
        own = made[_MASK].shape[1]
        if own is not None:
            self.packing = dataclasses.replace(self.packing, length=own)
        texts = [["", ""], ["a", "a"]] if self.packing.pairs else ["", "a"]
        made = traced(tf.constant(texts))
        mask = made[_MASK]
        ends = tf.sequence_mask(
            tf.reduce_sum(mask, axis=1), tf.shape(mask)[1], mask.dtype
        )
        if tf.reduce_any(mask != ends):
            return None
        last = {name: x[0, -1:].numpy() for name, x in made.items()}
        return {name: int(x[0]) if len(x) else 0 for name, x in last.items()}
