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
        if not isinstance(weights, tuple):
            ones = [1] * (len(weights.shape) - 1)
            factors = weights * tf.reshape(factors, [-1, *ones])
        weights = factors
        return (inputs, labels, weights, *present)


def weigh_classes(
    feed: Feed,
    class_weight: Mapping[int | str, float] | str | None,
    options: Options,
    classes: int | None = None,
) -> Feed:
    """Returns a feed whose examples are weighted by the `class_weight` of `fit`.

    Args:
        feed: The feed.
        class_weight: Weights by the index or the name of the label, 1 for the others;
            or `"balanced"`.
        options: The feed's options.
        classes: The size of the model's output, or `None`.

    Raises:
        DataError: A label is unknown, a weight is not a number of 0 or more, or the
            labels are not those of classes.
    """
    if class_weight is None or class_weight == {}:
        return feed
    _check_class_labels(feed, classes)
    if class_weight == "balanced":
        return ClassWeightedFeed(feed, _balanced_weights(feed))
    if not isinstance(class_weight, Mapping):
        raise DataError(
            'class_weight must be "balanced" or a dict such as {0: 1.0, 1: 2.5}; got '
            f"{class_weight!r:.80}."
        )
    count = 2 if classes == 1 else classes  # a single output tells two classes apart
    weights = {_class_index(k, options, count): w for k, w in class_weight.items()}
    wrong = [w for w in weights.values() if not (np.isscalar(w) and 0 <= w < math.inf)]
    if wrong:
        raise DataError(f"class_weight must be numbers of 0 or more; got {wrong[0]!r}.")
    return ClassWeightedFeed(feed, weights)


def _check_class_labels(feed: Feed, classes: int | None) -> None:
    """Raises a `DataError` unless labels are `[n]`, `[n, 1]` or `[n, classes]`."""
    labels = feed.element_spec[1]
    if not isinstance(labels, tf.TensorSpec):
        raise DataError(
            "class_weight is for models with one output. Give sample_weight, with "
            "weights for each output."
        )
    width = labels.shape[-1] if labels.shape.rank else None
    if labels.shape.rank == 1 or labels.shape.rank == 2 and width in (1, classes, None):
        return
    raise DataError(
        "class_weight is for labels [batch], [batch, 1] or one-hot [batch, classes]; "
        f"these are {labels.shape}. Give sample_weight, with a weight for each label."
    )


def _balanced_weights(feed: Feed) -> dict[int, float]:
    """Returns `examples / (classes * examples of the class)`, as scikit-learn does."""
    labels = feed.known_labels()
    if labels is None and feed.examples:
        labels, _ = feed.labels_and_weights()
    if labels is None:
        raise DataError(
            'class_weight="balanced" counts the labels before training, and those of a '
            "batched dataset or of a generator can only be read with the examples. "
            "Give the weights: class_weight={0: 1.0, 1: 2.5}."
        )
    indices = _class_indices(tf.convert_to_tensor(labels)).numpy()
    classes, counts = np.unique(indices, return_counts=True)
    weights = len(indices) / (len(classes) * counts)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def _class_index(key, options: Options, classes: int | None) -> int:
    if isinstance(key, str):
        if options.label_index is None:
            raise DataError(
                f"class_weight names the label {key!r}, but this model has no names of "
                "labels. Type their indices."
            )
        return options.label_index(key)
    whole = isinstance(key, (int, np.integer)) and not isinstance(key, bool)
    if whole and 0 <= key < (classes or math.inf):
        return int(key)
    allowed = f"an index from 0 to {classes - 1}" if classes else "an index"
    raise DataError(
        f"class_weight has the key {key!r}: it must be {allowed} or a label's name."
    )


def _class_indices(labels: tf.Tensor) -> tf.Tensor:
    """Converts indices `[n]` or `[n, 1]`, or one-hot rows, to int64 indices `[n]`."""
    if labels.shape.rank == 2 and labels.shape[-1] != 1:
        return tf.argmax(labels, axis=-1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)
