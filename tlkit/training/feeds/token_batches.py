"""Texts are cut into tokens once, for all epochs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ...progress import progress
from .array_rows import Lengths, TensorRows
from .feed import Feed, Options, rows_feed

_CHUNK = 1024  # texts that are cut into tokens together


def tokenized(dataset: tf.data.Dataset, options: Options) -> Feed | None:
    """A feed of texts, held in memory as tokens.

    Args:
        dataset: Elements `(text, label, weight)`, not batched; the weight may be ().
        options: How they become batches.

    Returns:
        The feed; `None` if these are no texts, or if the preprocessor can only make
        batches of one length.
    """
    raw = dataset.element_spec[0]
    tokenize = getattr(options.preprocess, "tokenize", None)
    if tokenize is None or raw.dtype != tf.string:
        return None
    if tokenize(tf.zeros([0, *raw.shape], tf.string)) is None:
        return None
    tokenize = tf.function(
        tokenize,
        input_signature=[tf.TensorSpec([None, *raw.shape], tf.string)],
        autograph=False,  # nothing to convert, in which it takes two seconds
    )
    found = []
    for texts, *rest in progress(
        dataset.batch(_CHUNK),
        total=-(-int(dataset.cardinality()) // _CHUNK),
        what="cutting texts into tokens",
        verbose=options.verbose,
    ):
        found.append(
            (tokenize(texts), *(tf.nest.map_structure(np.asarray, r) for r in rest))
        )
    tokens, labels, weights = zip(*found, strict=True)
    names = list(tokens[0])
    with tf.device("CPU"):
        columns = {name: tf.concat([t[name] for t in tokens], 0) for name in names}
    lengths = Lengths(
        columns[names[0]].row_lengths().numpy(),
        _padded_length(options.preprocess),
        tuple(options.preprocess.padding(name) for name in sorted(names)),
    )
    merge = lambda parts: tf.nest.map_structure(lambda *p: np.concatenate(p), *parts)
    rows = TensorRows(columns, lengths)
    return rows_feed(rows, merge(labels), merge(weights), options, lengths=lengths)


def _padded_length(preprocess):
    lengths = preprocess.lengths
    if len(lengths) == 1:  # known when a graph is built, as XLA wants it
        return lambda longest: lengths[0]
    return preprocess.padded_length
