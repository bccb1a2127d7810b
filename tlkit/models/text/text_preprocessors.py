"""Tokenizes texts, with the same code in training and serving."""

import dataclasses
import functools

import tensorflow as tf

from ...errors import EncoderError, import_extra
from .packer import Packing
from .windows import join

Rows = dict[str, tf.RaggedTensor]

# TF Hub's name of the input that is 1 for a token and 0 for padding.
_MASK = "input_mask"


class TextPreprocessor:
    """Tokenizes texts into rows, and pads rows to one of a few lengths.

    Attributes:
        packing: How texts are packed into rows.
    """

    per_example = False
    packing: Packing

    def tokenize(self, raws: tf.Tensor) -> Rows | None:
        """Tokenizes texts into int32 rows `[n, (tokens)]` without padding.

        Args:
            raws: Strings `[n]`, or `[n, 2]` for pairs of texts.

        Returns:
            Rows by the name of the input, not longer than the last of `lengths`; `None`
            if the preprocessor's output does not show where each text ends.
        """
        raise NotImplementedError

    def padding(self, name: str) -> int:
        """Returns the value with which the rows of an input are padded."""
        raise NotImplementedError

    @property
    def lengths(self) -> tuple[int, ...]:
        """Returns the lengths that texts are padded to, ascending."""
        return self.packing.lengths

    def padded_length(self, longest: int | tf.Tensor) -> int | tf.Tensor:
        """Returns the smallest of `lengths` with room for `longest` tokens."""
        return self.packing.padded_length(longest)

    def pad(self, rows: Rows, tokens: int | tf.Tensor) -> dict[str, tf.Tensor]:
        """Pads the rows of each input to int32 `[n, tokens]`."""
        shape = tf.cast(tf.stack([-1, tokens]), tf.int64)
        padded = {
            name: row.to_tensor(self.padding(name), shape=shape)
            for name, row in rows.items()
        }
        if tf.is_tensor(tokens):
            return padded
        return {k: tf.ensure_shape(x, (None, tokens)) for k, x in padded.items()}

    def __call__(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """Turns texts `[n]` or pairs `[n, 2]` into int32 `[n, tokens]` for each input.

        Texts are padded to the smallest of `lengths` with room for the longest of them.
        """
        rows = self.tokenize(raws)
        if self.packing.fixed_length:
            return self.pad(rows, self.lengths[-1])
        longest = tf.reduce_max(next(iter(rows.values())).row_lengths())
        return self.pad(rows, self.padded_length(tf.cast(longest, tf.int32)))

    def batch(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        return self(raws)

    def to_longest(self, raws: tf.Tensor) -> dict[str, tf.Tensor]:
        """Works like `__call__`, but pads only to the longest text if it fits a window.

        This makes short texts cheap on a server, which compiles no program per length.
        """
        rows = self.tokenize(raws)
        if rows is None or self.packing.fixed_length:
            return self(raws)
        longest = tf.reduce_max(next(iter(rows.values())).row_lengths())
        longest = tf.maximum(tf.cast(longest, tf.int32), 1)  # also for an empty batch
        fits = longest <= self.packing.length
        return self.pad(rows, tf.where(fits, longest, self.padded_length(longest)))


@dataclasses.dataclass(frozen=True)
class WordPiecePreprocessor(TextPreprocessor):
    """Tokenizes texts into word pieces and packs them, as BERT's own code does.

    Args:
        vocabulary: The word pieces in the order of their ids.
        lower_case: Whether to convert to lower case and to strip accents.
        packing: How texts are packed into rows.
        names: Names of the inputs for the ids, the mask and the types.
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
                    "Pass the encoder's own preprocessor as preprocessor=…"
                )
        return {piece: self.vocabulary.index(piece) for piece in pieces}


# Cached: AutoGraph cannot convert an import, but leaves cached functions alone.
@functools.lru_cache
def _tensorflow_text():
    return import_extra("tensorflow_text", "text", "a text encoder")


@functools.lru_cache(maxsize=4)
def _word_piece_tokenizer(vocabulary: tuple[str, ...], lower_case: bool):
    # The tokenizer's model is a constant in the graph, so an export has no asset file.
    # It is created outside of any graph, since several graphs use it.
    with tf.init_scope():
        return _tensorflow_text().FastBertTokenizer(
            vocab=list(vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=lower_case,
        )


class SavedPreprocessor(TextPreprocessor):
    """Calls a published preprocessor: a SavedModel from strings to token ids.

    Args:
        source: A source, see `tlkit.load_encoder`.
        packing: How texts are packed into rows. If the preprocessor always returns the
            same number of tokens, this number replaces `packing.length`.
        trust: See `tlkit.load_encoder`.

    Raises:
        SourceError: The source was not found, or contains ops that need `trust=True`.
        EncoderError: The preprocessor has no functions for an option of the packing.
    """

    def __init__(self, source: str, packing: Packing, *, trust: bool = False):
        from ...encoders.saved_model import read_saved_model
        from ...sources import resolve

        self.source, self.packing = source, packing
        self.module = read_saved_model(resolve(source).path, trust=trust).module
        # Only preprocessors with these two functions can pack to any length.
        self.packs = all(
            hasattr(self.module, name) for name in ("tokenize", "bert_pack_inputs")
        )
        other = dataclasses.replace(packing, length=5, overlap=0, fixed_length=False)
        if not self.packs and other != Packing(length=5):
            raise EncoderError(
                f"The preprocessor {source!r} has no tokenize and bert_pack_inputs, so "
                "it is for single texts, which it truncates itself. Leave pairs, "
                "truncation and windows out."
            )
        self._padding = self._learn_padding()

    def tokenize(self, raws: tf.Tensor) -> Rows | None:
        if self._padding is None:
            return None
        inputs, counts = self._padded_inputs(raws)
        lengths = tf.minimum(tf.reduce_sum(inputs[_MASK], axis=1), self.packing.length)
        rows = {
            name: tf.RaggedTensor.from_tensor(inputs[name], lengths)
            for name in self._padding
        }
        if counts is None:
            return rows
        return {name: join(row, counts) for name, row in rows.items()}

    def padding(self, name: str) -> int:
        return self._padding[name]

    def __call__(self, raws: tf.Tensor):
        if self._padding is None:
            return self._padded_inputs(raws)[0]
        return super().__call__(raws)

    def _padded_inputs(self, raws: tf.Tensor):
        """Returns the padded inputs, and each text's number of windows or `None`."""
        packing = self.packing
        if not self.packs:
            return self.module(*packing.segments(raws)), None
        if packing.truncation == "head" and packing.windows == 1:
            # `bert_pack_inputs` keeps the first tokens, so nothing is truncated before.
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
        """Finds each input's padding value; `None` if the ends of texts are unknown."""
        spec = tf.TensorSpec((None, 2) if self.packing.pairs else (None,), tf.string)
        traced = tf.function(lambda raws: self._padded_inputs(raws)[0])
        specs = traced.get_concrete_function(spec).structured_outputs
        if not isinstance(specs, dict) or _MASK not in specs:
            return None
        if any(spec.shape.rank != 2 for spec in specs.values()):
            return None
        length = specs[_MASK].shape[1]
        if length is not None:
            self.packing = dataclasses.replace(self.packing, length=length)
        texts = [["", ""], ["a", "a"]] if self.packing.pairs else ["", "a"]
        inputs = traced(tf.constant(texts))
        mask = inputs[_MASK]
        ends = tf.sequence_mask(
            tf.reduce_sum(mask, axis=1), tf.shape(mask)[1], mask.dtype
        )
        if tf.reduce_any(mask != ends):
            return None
        last = {name: x[0, -1:].numpy() for name, x in inputs.items()}
        return {name: int(x[0]) if len(x) else 0 for name, x in last.items()}
