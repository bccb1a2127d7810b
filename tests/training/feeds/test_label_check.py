"""Wrong labels are named before the loss meets them."""

import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.training.feeds.data_errors import naming_data_errors
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import make_feed
from tlkit.training.feeds.label_check import (
    CheckedFeed,
    LabelRange,
    check_labels,
)

X, Y = np.zeros((10, 4), "f"), np.arange(10) % 3
OPTIONS = Options(4)
RANGE = LabelRange(3, names=("a", "b", "c"))


def checked(x, y=None, allowed=RANGE):
    return check_labels(make_feed(x, y, None, OPTIONS), allowed, "validation")


def dataset(y, size=4):
    return tf.data.Dataset.from_tensor_slices((X, y)).batch(size)


@pytest.mark.parametrize("wrong", [3, -1, np.nan])
def test_labels_in_memory_are_checked_at_once(splits, wrong):
    labels = Y.astype("f")
    labels[7] = wrong
    with pytest.raises(DataError, match=r"validation example 7 is .* 3 classes \(a, b"):
        checked(X, labels)
    feed = checked(splits.train)
    assert not isinstance(feed, CheckedFeed)


def test_labels_of_a_stream_are_checked_in_their_batch():
    feed = checked(dataset(np.where(np.arange(10) == 9, 3, Y)))
    assert isinstance(feed, CheckedFeed)
    with pytest.raises(DataError, match="validation example 1 of batch 2 is 3, but"):
        with naming_data_errors():
            list(feed.batches(None, skip=1))
    right = checked(dataset(Y.astype("uint8")), allowed=LabelRange(300, ignored=-1))
    assert np.concatenate([y for _, y, _ in right.batches(0)]).tolist() == Y.tolist()


def test_other_errors_of_tensorflow_stay():
    with pytest.raises(tf.errors.InvalidArgumentError), naming_data_errors():
        tf.debugging.Assert(False, ["other"])


def test_ignored_labels_and_probabilities_are_allowed():
    labels = np.where(Y == 2, 255, Y)
    checked(X, labels, LabelRange(3, ignored=255))
    feed = make_feed(X, np.eye(3, dtype="f")[Y], None, OPTIONS)
    assert check_labels(feed, RANGE, "training") is feed
    steps = LabelRange(3, rank=3)
    with pytest.raises(DataError, match="example 1 is 9"):
        checked(X, np.where(np.arange(20).reshape(10, 2) == 3, 9, 0), steps)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_one_hot_rows_of_a_plain_model_are_named(dtype):
    with pytest.raises(DataError, match=r"one-hot rows, type y\.argmax"):
        checked(X, np.eye(3).astype(dtype)[Y])
    with pytest.raises(DataError, match=r"must be indices"):
        checked(X, np.eye(4).astype(dtype)[Y])


def test_strings_are_named_with_their_conversion():
    with pytest.raises(DataError, match=r"are strings.*tf.constant\(\['a', 'b', 'c'\]"):
        checked(dataset(np.array(["a", "b"] * 5)))


def test_one_hot_rows_of_a_model_of_tlkit_become_probabilities():
    options = Options(4, label_index=str, classes=3, preprocess=lambda raw: raw)
    one_hot = dataset(np.eye(3, dtype="int64")[Y])
    _, labels, _ = next(iter(make_feed(one_hot, None, None, options).batches(0)))
    assert labels.dtype == tf.float32
    _, labels, _ = (
        make_feed(dataset(Y == 1), None, None, options).batches(0).element_spec
    )
    assert labels.dtype == tf.int32


def test_an_empty_dataset_is_named():
    with pytest.raises(DataError, match="no batches"):
        make_feed(dataset(Y).take(0), None, None, OPTIONS)
