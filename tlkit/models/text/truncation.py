"""Which tokens of long texts are kept, and reading no more of a text than that takes.

Long texts: the first tokens, the last, or a quarter of the first and three quarters of
the last (Sun et al. 2019, How to Fine-Tune BERT for Text Classification, arXiv
1905.05583, who found the last to do best).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Bytes that are read of each end of a text for each token wanted. An English token has
# some five; of a text that has less tokens there, all is read.
_BYTES = 16
# Characters at which a text can be parted without a change to its tokens: no word piece
# reaches over blanks, and marks of punctuation and Han characters are tokens by
# themselves.
_PARTING = r" \t\r\n。，\x{4e00}-\x{9fff}"


def fit(
    first: tf.RaggedTensor, second: tf.RaggedTensor, count: int, truncation: str
) -> list[tf.RaggedTensor]:
    """Cuts pairs of texts to so many tokens together.

    The longer one loses tokens until both fit, as in BERT's own code, which is also
    what the round-robin trimmer of TF Text comes to.

    Args:
        first: int32 `[n, (tokens)]`, those of the first texts.
        second: Those of the second texts.
        count: The most tokens that are kept of a pair.
        truncation: As for `keep`, which cuts each of the two.

    Returns:
        Both, cut.
    """
    ours, theirs = first.row_lengths(), second.row_lengths()
    half = tf.constant((count + 1) // 2, ours.dtype)
    ours = tf.minimum(ours, tf.maximum(half, count - theirs))
    theirs = tf.minimum(theirs, count - ours)
    return [keep(first, ours, truncation), keep(second, theirs, truncation)]


def keep(
    tokens: tf.RaggedTensor, count: int | tf.Tensor, truncation: str
) -> tf.RaggedTensor:
    """Keeps so many tokens of each row: the first, the last, or some of both.

    Args:
        tokens: `[n, (tokens)]`.
        count: How many, or `[n]` of them, one for each row.
        truncation: `"head"`, `"tail"` or `"head+tail"`.

    Returns:
        `[n, (tokens)]`; a row with no more than `count` tokens is as it was.
    """
    if truncation == "head" and isinstance(count, int):
        return tokens[:, :count]
    lengths = tokens.row_lengths()
    count = tf.broadcast_to(tf.cast(count, lengths.dtype), tf.shape(lengths))
    first, last = _ends(count, truncation)
    rows = tokens.value_rowids()
    places = tf.range(tokens.row_splits[-1]) - tf.gather(tokens.row_starts(), rows)
    kept = (places < tf.gather(first, rows)) | (
        places >= tf.gather(lengths - last, rows)
    )
    return tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(tokens.values, kept),
        tf.minimum(lengths, count),
        validate=False,
    )


def _ends(count, truncation: str):
    """How many of so many tokens are a text's first and how many its last."""
    first = {"head": count, "tail": count * 0, "head+tail": count // 4}[truncation]
    return first, count - first


def read(
    tokenize: Callable[[tf.Tensor], tf.RaggedTensor],
    raws: tf.Tensor,
    count: int,
    truncation: str,
) -> tf.RaggedTensor:
    """Makes tokens of texts, of long ones only of the ends that are kept.

    What `keep` makes of the result is what it makes of all tokens: where an end has
    not enough of them (a million blanks may stand there, or one endless word), all of
    the text is read after all.

    Args:
        tokenize: Makes `[n, (tokens)]` of texts `[n]`. Parting a text at blanks must
            part its tokens.
        raws: Strings `[n]` in UTF-8, of any length.
        count: How many tokens `keep` will keep.
        truncation: As for `keep`.

    Returns:
        `[n, (tokens)]`, all tokens of a text or the first and the last.
    """
    size = _BYTES * count
    long = tf.strings.length(raws) > 2 * size
    whole, tokens = tf.zeros_like(long), []
    for text, wanted in _read_ends(raws, size, long, count, truncation):
        tokens.append(tokenize(text))
        parted = tf.strings.length(text) < size
        enough = tokens[-1].row_lengths() >= wanted
        whole |= long & ~(parted & enough)
    made = tokens[0] if len(tokens) == 1 else tf.concat(tokens, axis=1)
    return tf.cond(
        tf.reduce_any(whole),
        lambda: _replace(made, whole, tokenize, raws),
        lambda: made,
    )


def _read_ends(raws, size: int, long, count: int, truncation: str):
    """The ends of long texts, parted from the rest, and how many tokens they must have.

    Of other texts the first of the ends is all.
    """
    first, last = _ends(count, truncation)
    texts = []
    if truncation != "tail":
        end = tf.strings.substr(raws, 0, size)
        # The last bytes may be a part of a character, which only \C matches.
        parting = rf"[{_PARTING}][^{_PARTING}]*\C{{0,3}}\z"
        texts.append((tf.strings.regex_replace(end, parting, "", False), first))
    if truncation != "head":
        start = tf.maximum(tf.strings.length(raws) - size, 0)
        end = tf.strings.substr(raws, start, tf.fill(tf.shape(start), size))
        parting = rf"\A\C{{0,3}}[^{_PARTING}]*[{_PARTING}]"
        texts.append((tf.strings.regex_replace(end, parting, "", False), last))
    others = [raws, ""]
    return [
        (tf.where(long, text, other), wanted)
        for (text, wanted), other in zip(texts, others, strict=False)
    ]


def _replace(tokens: tf.RaggedTensor, whole, tokenize, raws) -> tf.RaggedTensor:
    """The tokens with those of some texts read again as a whole."""
    again = tokenize(tf.boolean_mask(raws, whole))
    chosen = tf.cast(whole, tf.int64)
    order = tf.where(
        whole, tokens.nrows() + tf.cumsum(chosen) - 1, tf.range(tokens.nrows())
    )
    return tf.gather(tf.concat([tokens, again], axis=0), order)
