"""Texts that are tokenized once, for all epochs, and held in memory as rows of tokens.

Tested in tests/training/feeds/test_feeds.py.
"""

import functools

import numpy as np
import tensorflow as tf

from ...progress import progress
from .array_rows import Lengths, TensorRows
from .feed import Options
from .rows_feed import RowsFeed

_CHUNK = 1024  # texts that are tokenized together


def tokenized_feed(dataset: tf.data.Dataset, options: Options) -> RowsFeed | None:
    """Tokenizes all texts of a dataset.

    Args:
        dataset: Elements `(text, label, weight)`, not batched; the weight may be ().
        options: How they become batches.

    Returns:
        A feed of the tokens; `None` if the examples are not texts, if their number is
        not known, or if the preprocessor can only return batches padded to one length.
    """
    count = int(dataset.cardinality())
    raw = dataset.element_spec[0]
    has_tokens = hasattr(options.preprocess, "tokenize")
    if count <= 0 or not has_tokens or raw.dtype != tf.string:
        return None
    tokenize = _traced_tokenize(options.preprocess, tuple(raw.shape))
    if tokenize is None:
        return None
    chunks = [
        (tokenize(texts), tf.nest.map_structure(np.asarray, rest))
        for texts, *rest in progress(
            dataset.batch(_CHUNK),
            total=-(-count // _CHUNK),
            what="tokenizing texts",
            verbose=options.verbose,
        )
    ]
    tokens, rest = zip(*chunks, strict=True)
    names = list(tokens[0])
    with tf.device("CPU"):
        columns = {name: tf.concat([t[name] for t in tokens], 0) for name in names}
    lengths = Lengths(
        columns[names[0]].row_lengths().numpy(),
        _padded_length(options.preprocess),
        tuple(options.preprocess.padding(name) for name in sorted(names)),
    )
    labels, weights = tf.nest.map_structure(lambda *p: np.concatenate(p), *rest)
    rows = TensorRows(columns, lengths)
    return RowsFeed(rows, labels, weights, options, lengths=lengths)


@functools.lru_cache(maxsize=4)  # Tracing takes half a second for each data set.
def _traced_tokenize(preprocess, shape: tuple[int | None, ...]):
    """Returns the tokenizer, traced for texts of a shape; `None` if there is none."""
    tokenize = tf.function(
        preprocess.tokenize,
        input_signature=[tf.TensorSpec([None, *shape], tf.string)],
        autograph=False,  # it would take two seconds, with nothing to convert
    )
    # Traced now: a preprocessor that cannot tokenize returns `None`.
    has_rows = tokenize.get_concrete_function().structured_outputs is not None
    return tokenize if has_rows else None


def _padded_length(preprocess):
    lengths = preprocess.lengths
    if len(lengths) == 1:  # known when a graph is built, as XLA requires
        return lambda longest: lengths[0]
    return preprocess.padded_length
