"""A feed whose examples are weighted by their class.

Tested in tests/training/feeds/test_feeds.py.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .feed import Feed, Options, WrappedFeed


class ClassWeightedFeed(WrappedFeed):
    """Multiplies each example's weight by that of its class.

    Args:
        feed: The feed.
        class_weight: Weights of 0 or more by the index of the class; 1 for the others.
    """

    def __init__(self, feed: Feed, class_weight: Mapping[int, float]):
        super().__init__(feed)
        self._classes = tf.constant(list(class_weight), tf.int64)
        self._weights = tf.constant(list(class_weight.values()), tf.float32)

    def batches(self, epoch, *, skip=0, part=None):
        return super().batches(epoch, skip=skip, part=part).map(self._weigh)

    def longest_first(self):
        indices, batches = super().longest_first()
        return indices, batches.map(self._weigh)

    def view(self, number):
        return super().view(number).map(self._weigh)

    def labels_and_weights(self):
        labels, weights = super().labels_and_weights()
        _, labels, weights = self._weigh(None, tf.convert_to_tensor(labels), weights)
        return labels.numpy(), weights.numpy()

    def _weigh(self, inputs, labels, weights, *present):
        matches = _class_indices(labels)[:, tf.newaxis] == self._classes
        factors = tf.cast(matches, tf.float32) * (self._weights - 1.0)
        factors = tf.reduce_sum(factors, axis=1) + 1.0
        weights = factors if isinstance(weights, tuple) else weights * factors
        return (inputs, labels, weights, *present)


def weigh_classes(
    feed: Feed, class_weight: Mapping[int | str, float] | None, options: Options
) -> Feed:
    """Returns the feed with the `class_weight` of `fit`.

    Args:
        feed: The feed.
        class_weight: Weights by the index or the name of the label; 1 for the others.
        options: Those of the feed.

    Raises:
        DataError: A label is unknown, or a weight is not a number of 0 or more.
    """
    if not class_weight:
        return feed
    weights = {_class_index(key, options): w for key, w in class_weight.items()}
    wrong = [w for w in weights.values() if not (np.isscalar(w) and 0 <= w < math.inf)]
    if wrong:
        raise DataError(f"class_weight must be numbers of 0 or more; got {wrong[0]!r}.")
    return ClassWeightedFeed(feed, weights)


def _class_index(key, options: Options) -> int:
    if isinstance(key, str):
        if options.label_index is None:
            raise DataError(
                f"class_weight names the label {key!r}, but this model has no names of "
                "labels. Type their indices."
            )
        return options.label_index(key)
    if isinstance(key, (int, np.integer)) and key >= 0:
        return int(key)
    raise DataError(f"class_weight is by index or name of a label; got {key!r}.")


def _class_indices(labels: tf.Tensor) -> tf.Tensor:
    """Returns the classes of indices `[n]`, `[n, 1]`, or one-hot rows, int64 `[n]`."""
    if labels.shape.rank == 2 and labels.shape[-1] != 1:
        return tf.argmax(labels, axis=-1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)
