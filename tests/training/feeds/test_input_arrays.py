"""Arrays of every form of Keras's `fit` become columns of one length."""

import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.input_arrays import columns_of

PLAIN = Options(4)
NAMED = Options(4, preprocess=object(), label_index=["a", "b", "c"].index, classes=3)
X, Y = np.arange(12.0).reshape(6, 2), np.arange(6) % 3


class Series:
    """Stands in for one column of pandas, which need not be installed."""

    def __init__(self, values):
        self.values, self.shape = np.asarray(values), np.shape(values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_lists_tuples_and_dicts_of_arrays_are_nests():
    columns = columns_of([X, tf.constant(X)], {"p": Y, "q": [Y, X]}, None, PLAIN)
    assert [array.dtype for array in columns.inputs] == [np.float32] * 2
    assert isinstance(columns.labels["q"], tuple) and columns.weights == ()
    one, other = columns.split(0.3)  # the last ones, as in Keras
    assert len(one) == 4 and other.labels["p"].tolist() == [1, 2]
    rows = columns_of(X.tolist(), Y.tolist(), None, PLAIN)
    assert rows.inputs.shape == (6, 2) and rows.labels.shape == (6,)


def test_a_list_of_images_is_raw_examples_for_a_model_of_tlkit():
    columns = columns_of(list(X), ["a", "b", "c"] * 2, None, NAMED)
    assert columns.raw and columns.inputs.shape == (6, 2)
    assert columns.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert not columns_of({"ids": X}, Y, None, NAMED).raw
    assert not columns_of((X, X), Y, None, NAMED).raw
    assert columns_of(("a", "b"), ("a", "b"), None, NAMED).raw
    texts = columns_of(np.array(["é", b"b"], object), [True, False], None, NAMED)
    assert texts.inputs.tolist() == ["é".encode(), b"b"]
    assert texts.labels.tolist() == [1, 0] and texts.labels.dtype == np.int32
    one_hot = columns_of(X, np.eye(3, dtype=bool)[Y], None, NAMED)
    assert one_hot.labels.dtype == np.float32


def test_a_column_of_pandas_is_a_column_as_in_keras():
    columns = columns_of({"age": Series(Y), "x": X}, Series(Y), Series(Y), PLAIN)
    assert columns.inputs["age"].shape == columns.labels.shape == (6, 1)
    assert columns_of(Series(["a"] * 6), Y, None, NAMED).inputs.tolist() == [b"a"] * 6


def test_weights_are_by_example_step_or_output():
    weights = columns_of(X, [Y, X], Y, PLAIN).weights
    assert [w.shape for w in weights] == [(6,), (6,)]
    assert columns_of(X, X, X, PLAIN).weights.shape == (6, 2)
    assert columns_of(X, {"p": Y}, {"p": X}, PLAIN).weights["p"].shape == (6, 2)
    assert columns_of(X, Y, [Y], PLAIN).weights.dtype == np.float32


@pytest.mark.parametrize(
    "x, y, weights, message",
    [
        (X, None, None, "y is missing"),
        (X, Y[:5], None, "Their lengths: x 6; y 5"),
        (X[:0], Y[:0], None, "no examples"),
        (X, {"p": Y, "q": Y}, X, "One sample_weight for several outputs"),
        (X, [Y, Y], [Y, Y, Y], "must have the structure of y"),
        (X, Y, np.array(["a"] * 6), "sample_weight must be numbers"),
        (np.array([1, None] * 3, object), Y, None, "one of type int: 1"),
        (tf.sparse.from_dense(X), Y, None, "tf.sparse.to_dense"),
        (tf.ragged.constant([[1], [2, 3]]), Y, None, r"\.to_tensor\(\)"),
        (X, ["a"] * 6, None, "this model has none"),
        ([[1, 2], [1]], Y, None, "differ in shape"),
        (3.0, Y, None, "one entry for each example"),
    ],
)
def test_what_cannot_be_taken_is_named(x, y, weights, message):
    with pytest.raises(DataError, match=message):
        columns_of(x, y, weights, PLAIN)


def test_a_split_of_nothing_is_an_error():
    for fraction in (1.0, -0.1, 0.99, "0.2", 1):
        with pytest.raises(DataError, match="validation_split"):
            columns_of(X, Y, None, PLAIN).split(fraction)
