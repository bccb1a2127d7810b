"""Checks labels before they reach the loss, whose error would name no example.

Labels that are in memory are checked at once; other labels are checked in each batch.
Tested in tests/training/feeds/test_label_check.py.
"""

import dataclasses
import re
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .feed import Feed, WrappedFeed

_MARK = "tlkit: label out of range"
_FOUND = re.compile(rf"{_MARK}\] \[([^\]]+)\] \[(\d+)\] \[(-?\d+)\]")


@dataclasses.dataclass(frozen=True)
class LabelRange:
    """The labels that a classifier can learn.

    Attributes:
        classes: How many classes there are; labels are indices from 0.
        rank: The rank of the model's output.
        ignored: The label that the loss ignores, or `None`.
        names: The names of the labels, if the model has them.
    """

    classes: int
    rank: int = 2
    ignored: int | None = None
    names: tuple[str, ...] = ()

    def outside(self, labels: Any) -> Any:
        """Returns which labels are out of range, as a boolean array or tensor."""
        inside = (labels >= 0) & (labels < self.classes)
        if self.ignored is not None:
            inside |= labels == self.ignored
        return ~inside

    def error(self, where: str, label: Any) -> DataError:
        """Returns the error for a label that is out of range."""
        names = f" ({', '.join(self.names[:10])})" if self.names else ""
        return DataError(
            f"The label of {where} is {label}, but the model has {self.classes} "
            f"classes{names}: labels are indices from 0 to {self.classes - 1}. Correct "
            "the labels, or build the model for more classes."
        )


class CheckedFeed(WrappedFeed):
    """A feed that checks the labels of each batch.

    Args:
        feed: The feed.
        allowed: The allowed labels.
        what: The data's name in messages: `"training"` or `"validation"`.
    """

    def __init__(self, feed: Feed, allowed: LabelRange, what: str):
        super().__init__(feed)
        self.allowed, self.what = allowed, what

    def batches(self, epoch, *, skip=0, part=None):
        return self._checked(super().batches(epoch, skip=skip, part=part), skip)

    def view(self, number):
        return self._checked(super().view(number), 0)

    def _checked(self, dataset: tf.data.Dataset, first: int) -> tf.data.Dataset:
        def check(number, batch):
            inputs, labels, *rest = batch
            flat = tf.reshape(labels, [tf.shape(labels)[0], -1])
            if not flat.dtype.is_floating:  # uint8 labels cannot be compared with 300
                flat = tf.cast(flat, tf.int64)
            outside = self.allowed.outside(flat)
            row = tf.argmax(tf.reduce_any(outside, axis=1))
            column = tf.argmax(tf.gather(outside, row))
            value = tf.cast(flat[row, column], tf.int64)
            where = tf.strings.format(
                f"{self.what} example {{}} of batch {{}}", (row, number), summarize=-1
            )
            known = [_MARK, where, self.allowed.classes, value]
            right = tf.debugging.Assert(~tf.reduce_any(outside), known)
            with tf.control_dependencies([right]):
                labels = tf.identity(labels)
            return (inputs, labels, *rest)

        # AutoGraph would take time, and has nothing to convert.
        check = tf.autograph.experimental.do_not_convert(check)
        return dataset.enumerate(start=first).map(check)


def check_labels(feed: Feed, allowed: LabelRange, what: str) -> Feed:
    """Checks the labels of a feed, or returns one that checks those of each batch.

    Args:
        feed: The examples, before they are weighted or blended.
        allowed: The allowed labels.
        what: The data's name in messages: `"training"` or `"validation"`.

    Raises:
        DataError: Labels are strings, one-hot rows, or out of range.
    """
    spec = feed.element_spec[1]
    if not isinstance(spec, tf.TensorSpec):
        return feed  # labels of several outputs, which Keras checks
    if spec.dtype == tf.string:
        names = allowed.names or ("cat", "dog")
        raise DataError(
            f"The labels of the {what} data are strings, and the model learns indices. "
            f"Type: names = tf.constant({list(names[:3])!r}); dataset.map(lambda x, y: "
            "(x, tf.argmax(tf.equal(tf.expand_dims(y, -1), names), axis=-1)))"
        )
    rank = spec.shape.rank
    same_width = rank == allowed.rank and spec.shape[-1] == allowed.classes
    if same_width and spec.dtype.is_floating:
        return feed  # labels that are class probabilities
    rows = rank == allowed.rank == 2 and spec.shape[-1] not in (None, 1)
    if same_width or rows:
        raise DataError(
            f"The labels of the {what} data must be indices [batch]; they are "
            f"{spec.dtype.name} {list(spec.shape)}. If these are one-hot rows, type "
            'y.argmax(axis=-1), or the loss "categorical_crossentropy".'
        )
    labels = feed.known_labels()
    if labels is None:
        return CheckedFeed(feed, allowed, what)
    labels = np.asarray(labels)
    outside = allowed.outside(labels).reshape(len(labels), -1)
    if outside.any():
        row = int(outside.any(axis=1).argmax())
        wrong = labels.reshape(len(labels), -1)[row][outside[row].argmax()]
        raise allowed.error(f"{what} example {row}", wrong)
    return feed


def label_error(message: str) -> DataError | None:
    """Returns the error for TensorFlow's message about a label, or `None`."""
    found = _FOUND.search(message)
    if found is None:
        return None
    where, classes, label = found.groups()
    return LabelRange(int(classes)).error(where, label)
