"""Splits long texts into windows. The head gets the mean of the windows' features.

A text of several windows is one row of tokens, in which all windows except the last are
full: `[CLS] … [SEP] [CLS] … [SEP] [CLS] … [SEP]`. The model folds the row into one row
for each window. So a text is one example with one label and one prediction.

Tested in tests/models/text/test_packer.py.
"""

from typing import Any

import keras
import tensorflow as tf


def capacity(size: int, overlap: int, windows: int) -> int:
    """Returns how many tokens of a text fit into `windows` overlapping windows."""
    return size + (windows - 1) * (size - overlap)


def split(
    tokens: tf.RaggedTensor, size: int, overlap: int
) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """Splits rows of tokens into windows.

    Args:
        tokens: `[n, (tokens)]`.
        size: The tokens of a window. The last window of a row may have fewer.
        overlap: The number of tokens that a window shares with the one before.

    Returns:
        The windows of all rows in order, `[windows, (tokens)]`, and the number of
        windows of each row, `[n]`, at least 1.
    """
    lengths = tokens.row_lengths()
    step = tf.constant(size - overlap, lengths.dtype)
    counts = 1 + tf.maximum(-(-(lengths - size) // step), 0)
    number = tf.ragged.range(counts).values
    begin = step * number
    rows = tf.repeat(tf.range(tokens.nrows()), counts)
    end = tf.minimum(begin + size, tf.gather(lengths, rows))
    start = tf.gather(tokens.row_starts(), rows)
    positions = tf.ragged.range(start + begin, start + end)
    return positions.with_values(tf.gather(tokens.values, positions.values)), counts


def join(windows: tf.RaggedTensor, counts: tf.Tensor) -> tf.RaggedTensor:
    """Joins the windows of each text into one row; the inverse of `Windows`."""
    ends = tf.concat([[0], tf.cumsum(counts)], axis=0)
    splits = tf.gather(windows.row_splits, ends)
    return tf.RaggedTensor.from_row_splits(windows.values, splits, validate=False)


@keras.saving.register_keras_serializable(package="tlkit")
class Windows(keras.layers.Layer):
    """Folds rows of tokens, `[n, windows * length]`, into one row for each window.

    Args:
        length: The tokens of a window. Shorter rows are one window.
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
    """Computes the mean of the features of each text's windows.

    The logits of a linear head are then the means of the windows' logits.
    """

    def call(self, features, mask, texts):
        """Averages over the windows that have tokens, and returns float `[n, d]`.

        Args:
            features: Float `[windows, d]`, the features of all windows of all texts.
            mask: Int `[windows, tokens]`, 1 for a token and 0 for padding.
            texts: Int `[n, …]`, any tensor with one row for each text.
        """
        count = tf.shape(texts)[0]
        has_tokens = tf.cast(tf.reduce_any(mask > 0, axis=1), features.dtype)
        weights = tf.reshape(has_tokens, [count, -1, 1])
        by_text = tf.reshape(
            features, [count, tf.shape(weights)[1], features.shape[-1]]
        )
        total = tf.reduce_sum(by_text * weights, axis=1)
        return total / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)

    def compute_output_spec(self, features, mask, texts):
        return keras.KerasTensor((texts.shape[0], features.shape[-1]), features.dtype)
