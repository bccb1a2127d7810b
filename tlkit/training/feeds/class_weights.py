"""Weights of classes: each example weighs as much as its class says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .feed import Feed, Options


def weigh_classes(
    feed: Feed, class_weight: Mapping[int | str, float] | None, options: Options
) -> Feed:
    """The same feed, with each example's weight multiplied by that of its class.

    Args:
        feed: The feed.
        class_weight: Weights by the index or the name of the label; 1 for classes that
            are not there.
        options: Those that the feed was made with.

    Raises:
        DataError: A label is unknown, or a weight is not a number of 0 or more.
    """
    if not class_weight:
        return feed
    weights = {_class_index(key, options): w for key, w in class_weight.items()}
    wrong = [w for w in weights.values() if not (np.isscalar(w) and 0 <= w < math.inf)]
    if wrong:
        raise DataError(f"class_weight must be numbers of 0 or more; got {wrong[0]!r}.")
    keys = tf.constant(list(weights), tf.int64)
    values = tf.constant(list(weights.values()), tf.float32)

    def weigh(inputs, labels, old, *present):
        hits = tf.cast(_classes(labels)[:, tf.newaxis] == keys, tf.float32)
        new = tf.reduce_sum(hits * (values - 1.0), axis=1) + 1.0
        new = new if isinstance(old, tuple) else old * new
        return (inputs, labels, new, *present)

    def by_size():
        order, batches = feed.by_size()
        return order, batches.map(weigh)

    return dataclasses.replace(
        feed,
        batches=lambda epoch, **which: feed.batches(epoch, **which).map(weigh),
        by_size=by_size if feed.by_size else None,
        marks=lambda: weigh(None, *feed.marks())[1:],
    )


def _class_index(key, options: Options) -> int:
    if isinstance(key, str):
        if options.label_index is None:
            raise DataError(
                f"class_weight names the label {key!r}, but this model has no names of "
                "labels. Give their indices."
            )
        return options.label_index(key)
    if isinstance(key, (int, np.integer)) and key >= 0:
        return int(key)
    raise DataError(f"class_weight is by index or name of a label; got {key!r}.")


def _classes(labels: tf.Tensor) -> tf.Tensor:
    if labels.shape.rank == 2 and labels.shape[-1] != 1:
        return tf.argmax(labels, axis=-1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)
