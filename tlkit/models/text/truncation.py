"""Truncates tokenized texts, and tokenizes only the parts of a text that are used.

For long texts, a quarter of the tokens from the beginning and three quarters from the
end are a good choice (Sun et al. 2019, How to Fine-Tune BERT for Text Classification,
arXiv 1905.05583).

Tested in tests/models/text/test_packer.py.
"""

from collections.abc import Callable

import tensorflow as tf

# Of each end of a long text, this many bytes are tokenized for each token that is used.
# An English token has about five bytes. If an end yields too few tokens, the whole text
# is tokenized.
_BYTES = 16
# Characters at which a text can be divided without changing its tokens: no word piece
# crosses a blank, and punctuation and Han characters are tokens of their own.
_SEPARATORS = r" \t\r\n。，\x{4e00}-\x{9fff}"


def truncate_pairs(
    first: tf.RaggedTensor, second: tf.RaggedTensor, count: int, truncation: str
) -> list[tf.RaggedTensor]:
    """Truncates pairs of texts, so that a pair has at most `count` tokens.

    The longer text loses tokens until the pair fits, as in BERT's own code and with the
    round-robin trimmer of TF Text.

    Args:
        first: int32 `[n, (tokens)]`, the tokens of the first texts.
        second: The tokens of the second texts.
        count: The maximum number of tokens of a pair.
        truncation: See `truncate`, which truncates each text of a pair.
    """
    ours, theirs = first.row_lengths(), second.row_lengths()
    half = tf.constant((count + 1) // 2, ours.dtype)
    ours = tf.minimum(ours, tf.maximum(half, count - theirs))
    theirs = tf.minimum(theirs, count - ours)
    return [truncate(first, ours, truncation), truncate(second, theirs, truncation)]


def truncate(
    tokens: tf.RaggedTensor, count: int | tf.Tensor, truncation: str
) -> tf.RaggedTensor:
    """Truncates rows of tokens.

    Args:
        tokens: `[n, (tokens)]`.
        count: The maximum number of tokens: one for all rows, or `[n]`.
        truncation: `"head"` for the first tokens, `"tail"` for the last, `"head+tail"`
            for a quarter from the beginning and three quarters from the end.

    Returns:
        `[n, (tokens)]`; a row with at most `count` tokens is unchanged.
    """
    if truncation == "head" and isinstance(count, int):
        return tokens[:, :count]
    lengths = tokens.row_lengths()
    count = tf.broadcast_to(tf.cast(count, lengths.dtype), tf.shape(lengths))
    first, last = _ends(count, truncation)
    rows = tokens.value_rowids()
    positions = tf.range(tokens.row_splits[-1]) - tf.gather(tokens.row_starts(), rows)
    used = (positions < tf.gather(first, rows)) | (
        positions >= tf.gather(lengths - last, rows)
    )
    return tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(tokens.values, used),
        tf.minimum(lengths, count),
        validate=False,
    )


def _ends(count, truncation: str):
    """Returns the numbers of tokens from the beginning and from the end of a text."""
    first = {"head": count, "tail": count * 0, "head+tail": count // 4}[truncation]
    return first, count - first


def tokenize_ends(
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
    raws: tf.Tensor,
    count: int,
    truncation: str,
) -> tf.RaggedTensor:
    """Tokenizes texts, and of long texts only the ends that `truncate` uses.

    `truncate` returns the same for the result as for the tokens of whole texts. If an
    end has too few tokens (a million blanks, or one endless word), the whole text is
    tokenized.

    Args:
        tokenize: Returns the tokens `[n, (tokens)]` of texts `[n]`. Dividing a text at
            blanks must not change its tokens.
        raws: Strings `[n]` in UTF-8, of any length.
        count: The number of tokens that `truncate` will use.
        truncation: See `truncate`.

    Returns:
        `[n, (tokens)]`: all tokens of a text, or its first and last ones.
    """
    size = _BYTES * count
    long = tf.strings.length(raws) > 2 * size
    whole, tokens = tf.zeros_like(long), []
    for text, needed in _cut_ends(raws, size, long, count, truncation):
        tokens.append(tokenize(text))
        divided = tf.strings.length(text) < size
        enough = tokens[-1].row_lengths() >= needed
        whole |= long & ~(divided & enough)
    joined = tokens[0] if len(tokens) == 1 else tf.concat(tokens, axis=1)
    return tf.cond(
        tf.reduce_any(whole),
        lambda: _replace(joined, whole, tokenize, raws),
        lambda: joined,
    )


def _cut_ends(raws, size: int, long, count: int, truncation: str):
    """Returns the ends of long texts, each with the number of tokens it must yield.

    Of a short text, the first returned end is the whole text, and the second is empty.
    """
    first, last = _ends(count, truncation)
    texts = []
    if truncation != "tail":
        end = tf.strings.substr(raws, 0, size)
        # The last bytes may be an incomplete character, which only \C matches.
        rest = rf"[{_SEPARATORS}][^{_SEPARATORS}]*\C{{0,3}}\z"
        texts.append((tf.strings.regex_replace(end, rest, "", False), first))
    if truncation != "head":
        start = tf.maximum(tf.strings.length(raws) - size, 0)
        end = tf.strings.substr(raws, start, tf.fill(tf.shape(start), size))
        rest = rf"\A\C{{0,3}}[^{_SEPARATORS}]*[{_SEPARATORS}]"
        texts.append((tf.strings.regex_replace(end, rest, "", False), last))
    return [
        (tf.where(long, text, short), needed)
        for (text, needed), short in zip(texts, [raws, ""], strict=False)
    ]


def _replace(tokens: tf.RaggedTensor, whole, tokenize, raws) -> tf.RaggedTensor:
    """Replaces the tokens of the texts marked in `whole` by all tokens of the text."""
    again = tokenize(tf.boolean_mask(raws, whole))
    order = tf.where(
        whole,
        tokens.nrows() + tf.cumsum(tf.cast(whole, tf.int64)) - 1,
        tf.range(tokens.nrows()),
    )
    return tf.gather(tf.concat([tokens, again], axis=0), order)
