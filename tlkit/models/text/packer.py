"""`Packing`: how texts are packed into rows of tokens."""

import dataclasses
import numbers
from collections.abc import Callable

import tensorflow as tf

from ...errors import DataError, EncoderError
from .truncation import tokenize_ends, truncate, truncate_pairs
from .windows import capacity, split

TRUNCATIONS = ("head", "tail", "head+tail")

_MAX_LENGTHS = 8


@dataclasses.dataclass(frozen=True)
class Packing:
    """How texts are packed into rows of tokens.

    Attributes:
        length: The maximum number of tokens of a text or a window, special tokens
            included.
        truncation: The tokens of a longer text that are used: `"head"` for the first,
            `"tail"` for the last, `"head+tail"` for a quarter from the beginning and
            three quarters from the end.
        pairs: Whether an example is a pair of texts.
        windows: The maximum number of windows of a text.
        overlap: The number of tokens that a window shares with the one before.
        fixed_length: Whether all texts are padded to the same length.

    Raises:
        EncoderError: An attribute is out of its range.
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
        for name in ("length", "windows", "overlap"):  # plain ints, for JSON
            object.__setattr__(self, name, int(getattr(self, name)))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Returns the lengths that rows are padded to, ascending.

        They are few: TensorFlow traces and XLA compiles a program for every length.
        """
        many = tuple(self.length * n for n in range(1, self.windows + 1))
        if self.fixed_length:
            return many[-1:]
        return (*range(self._step, self.length, self._step), *many)

    def padded_length(self, longest: int | tf.Tensor) -> int | tf.Tensor:
        """Returns the smallest of `lengths` that is at least `longest`, or the last."""
        if not tf.is_tensor(longest):
            fitting = (length for length in self.lengths if length >= longest)
            return next(fitting, self.lengths[-1])
        lengths = tf.constant(self.lengths, longest.dtype)
        index = tf.searchsorted(lengths, longest[tf.newaxis])[0]
        return lengths[tf.minimum(index, len(self.lengths) - 1)]

    @property
    def _step(self) -> int:
        # Multiples of 16 suit matrix products.
        return 16 * -(-self.length // (16 * _MAX_LENGTHS))

    @property
    def count(self) -> int:
        """Returns the number of tokens in a window, not counting special tokens."""
        return self.length - (3 if self.pairs else 2)

    def tokens(
        self,
        tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
        raws: tf.Tensor,
        *,
        parts: bool = True,
    ) -> tuple[list[tf.RaggedTensor], tf.Tensor | None]:
        """Tokenizes texts, then truncates them or splits them into windows.

        Args:
            tokenize: Returns the tokens, int32 `[n, (tokens)]`, of texts `[n]`.
            raws: Strings `[n]`, or `[n, 2]` for pairs.
            parts: Whether a text can be divided at blanks without changing its tokens.
                If so, only the used parts of a long text are tokenized.

        Returns:
            A list of int32 `[windows, (tokens)]`: one entry for single texts, two for
            pairs (the first and the second texts); and the number of windows of each
            text, `[n]`, or `None` if it is always one.

        Raises:
            DataError: The model is for pairs and got single texts, or the reverse.
        """
        count = capacity(self.count, self.overlap, self.windows)
        segments = [
            tokenize_ends(tokenize, texts, count, self.truncation)
            if parts
            else tokenize(texts)
            for texts in self.segments(raws)
        ]
        if self.pairs:
            return truncate_pairs(*segments, count, self.truncation), None
        tokens = truncate(*segments, count, self.truncation)
        if self.windows == 1:
            return [tokens], None
        windows, counts = split(tokens, self.count, self.overlap)
        return [windows], counts

    def segments(self, raws: tf.Tensor) -> list[tf.Tensor]:
        """Returns the texts `[n]`, or the first and the second texts of pairs."""
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


def _check_number(name: str, number: int, low: int, high: int | None) -> None:
    whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
    if whole and number >= low and (high is None or number <= high):
        return
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    if high == low:
        allowed = f"{low} for pairs of texts"
    raise EncoderError(f"{name} must be {allowed}; got {number!r}.")
