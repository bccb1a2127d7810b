"""Long texts in windows: the encoder reads each, and the head sees their mean.

A text of several windows is one row of tokens, in which every window but the last has
all its tokens: `[CLS] … [SEP] [CLS] … [SEP] [CLS] … [SEP]`. Inside the model the row is
folded into one row a window. So a text stays one example, with one label and one
prediction, in training, evaluation and serving alike.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def capacity(size: int, overlap: int, windows: int) -> int:
    """How many tokens so many windows of `size` hold, neighbors sharing `overlap`."""
    return size + (windows - 1) * (size - overlap)


def split(
    tokens: tf.RaggedTensor, size: int, overlap: int
) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Splits rows of tokens into windows.

    Args:
        tokens: `[n, (tokens)]`.
        size: Tokens of a window. The last of a row may have less, but some that no
            other window of the row has.
        overlap: How many tokens a window shares with the one before.

    Returns:
        `[windows, (tokens)]` of all rows in turn, and `[n]`, how many of them each row
        has, at least 1.
    """
    lengths = tokens.row_lengths()
    step = tf.constant(size - overlap, lengths.dtype)
    counts = 1 + tf.maximum(-(-(lengths - size) // step), 0)
    number = tf.ragged.range(counts).values
    begin = step * number
    rows = tf.repeat(tf.range(tokens.nrows()), counts)
    end = tf.minimum(begin + size, tf.gather(lengths, rows))
    start = tf.gather(tokens.row_starts(), rows)
    places = tf.ragged.range(start + begin, start + end)
    return places.with_values(tf.gather(tokens.values, places.values)), counts


def join(windows: tf.RaggedTensor, counts: tf.Tensor) -> tf.RaggedTensor:
    """Puts the windows of each text into one row; the inverse of `Windows`."""
    ends = tf.concat([[0], tf.cumsum(counts)], axis=0)
    splits = tf.gather(windows.row_splits, ends)
    return tf.RaggedTensor.from_row_splits(windows.values, splits, validate=False)


@keras.saving.register_keras_serializable(package="tlkit")
class Windows(keras.layers.Layer):
    """Folds rows of tokens into windows: `[n, windows * length]` to one row a window.

    Args:
        length: Tokens of a window. Rows that are shorter are one window.
    """

    def __init__(self, length: int, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def call(self, tokens):
        return tf.reshape(tokens, [-1, tf.minimum(tf.shape(tokens)[1], self.length)])

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((None, None), tokens.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"length": self.length}


@keras.saving.register_keras_serializable(package="tlkit")
class WindowMean(keras.layers.Layer):
    """The mean of each text's windows: `[windows, d]` to `[n, d]`.

    A head that is linear then gives the mean of the windows' logits.
    """

    def call(self, features, mask, texts):
        """Averages over windows with tokens.

        Args:
            features: Float `[windows, d]` of all texts in turn.
            mask: Int `[windows, tokens]`, 1 where there is a token.
            texts: Int `[n, …]`, anything with one row a text.
        """
        count = tf.shape(texts)[0]
        some = tf.cast(tf.reduce_any(mask > 0, axis=1), features.dtype)
        weights = tf.reshape(some, [count, -1, 1])
        width = features.shape[-1]
        apart = tf.reshape(features, [count, tf.shape(weights)[1], width])
        total = tf.reduce_sum(apart * weights, axis=1)
        return total / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)

    def compute_output_spec(self, features, mask, texts):
        return keras.KerasTensor((texts.shape[0], features.shape[-1]), features.dtype)
