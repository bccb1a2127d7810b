"""How texts become rows of tokens: how long, what of long ones, singly or in pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from ...errors import DataError, EncoderError
from .truncation import fit, keep, read
from .windows import capacity, split

TRUNCATIONS = ("head", "tail", "head+tail")

_MOST_LENGTHS = 8


@dataclasses.dataclass(frozen=True)
class Packing:
    """How texts become rows of tokens.

    Attributes:
        length: The most tokens that the encoder reads at once, special ones counted in.
        truncation: Which tokens of a longer text are kept: `"head"` for the first,
            `"tail"` for the last, `"head+tail"` for a quarter of the first and three
            quarters of the last.
        pairs: Whether an example is a pair of texts.
        windows: In how many windows of `length` tokens a text is read at most.
        overlap: How many tokens a window shares with the one before.
        fixed_length: Whether all texts are padded to the same length.

    Raises:
        EncoderError: One of them is out of its range.
    """

    length: int = 128
    truncation: str = "head"
    pairs: bool = False
    windows: int = 1
    overlap: int = 0
    fixed_length: bool = False

    def __post_init__(self) -> None:
        if self.truncation not in TRUNCATIONS:
            raise EncoderError(
                f"truncation must be one of {', '.join(TRUNCATIONS)}. Received: "
                f"{self.truncation!r}."
            )
        _check_number("length", self.length, 5 if self.pairs else 3, None)
        _check_number("windows", self.windows, 1, 1 if self.pairs else None)
        _check_number("overlap", self.overlap, 0, self.length - 3)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The few lengths that rows are padded to, ascending.

        Few, since each makes TensorFlow trace and XLA compile a program of its own.
        """
        many = tuple(self.length * n for n in range(1, self.windows + 1))
        if self.fixed_length:
            return many[-1:]
        return (*range(self._step, self.length, self._step), *many)

    def padded_length(self, longest: int | tf.Tensor) -> int | tf.Tensor:
        """The smallest of `lengths` that holds so many tokens, else the largest."""
        if not tf.is_tensor(longest):
            fitting = [length for length in self.lengths if length >= longest]
            return fitting[0] if fitting else self.lengths[-1]
        lengths = tf.constant(self.lengths, longest.dtype)
        place = tf.searchsorted(lengths, longest[tf.newaxis])[0]
        return lengths[tf.minimum(place, len(self.lengths) - 1)]

    @property
    def _step(self) -> int:
        # Multiples of 16 suit matrix products.
        return 16 * -(-self.length // (16 * _MOST_LENGTHS))

    @property
    def count(self) -> int:
        """How many tokens a window has beside the special ones."""
        return self.length - (3 if self.pairs else 2)

    def tokens(
        self,
        tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
        raws: tf.Tensor,
        *,
        parts: bool = True,
    ) -> tuple[list[tf.RaggedTensor], tf.Tensor | None]:
        """Makes the tokens that are kept of texts.

        Args:
            tokenize: Makes int32 `[n, (tokens)]` of texts `[n]`.
            raws: Strings `[n]`, or `[n, 2]` for pairs.
            parts: Whether parting a text at blanks parts its tokens. Of long texts no
                more is then read than needed.

        Returns:
            int32 `[windows, (tokens)]` of all windows, or a list with those of the
            first and of the second texts; and `[n]`, how many windows each text has,
            or `None` if it is one.

        Raises:
            DataError: Pairs are given to a model of single texts, or the reverse.
        """
        count = capacity(self.count, self.overlap, self.windows)
        segments = [
            read(tokenize, texts, count, self.truncation) if parts else tokenize(texts)
            for texts in self.segments(raws)
        ]
        if self.pairs:
            return fit(*segments, count, self.truncation), None
        kept = keep(*segments, count, self.truncation)
        if self.windows == 1:
            return [kept], None
        windows, counts = split(kept, self.count, self.overlap)
        return [windows], counts

    def segments(self, raws: tf.Tensor) -> list[tf.Tensor]:
        """The texts `[n]`, or the first and the second ones of pairs `[n, 2]`."""
        raws = tf.convert_to_tensor(raws)
        if not self.pairs and raws.shape.rank == 1:
            return [raws]
        if self.pairs and raws.shape.rank == 2 and raws.shape[1] == 2:
            return tf.unstack(raws, axis=1)
        takes = "pairs of texts [n, 2]" if self.pairs else "texts [n]"
        hint = "" if self.pairs else " For pairs, type: text_classifier(…, pairs=True)"
        raise DataError(
            f"This model takes {takes}; got strings of shape {raws.shape}.{hint}"
        )


def _check_number(name: str, number: int, least: int, most: int | None) -> None:
    whole = isinstance(number, int) and not isinstance(number, bool)
    if whole and number >= least and (most is None or number <= most):
        return
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    if most == least:
        allowed = f"{least} for pairs of texts"
    raise EncoderError(f"{name} must be {allowed}; got {number!r}.")
