"""Rows of arrays: as tensors, and of large arrays without a copy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.training import fit
from tlkit.training.feeds import array_rows as rows
from tlkit.training.feeds.array_rows import (
    ArrayRows,
    TensorRows,
    held_rows,
    tensor_rows,
)
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import make_feed

RANDOM = np.random.default_rng(0)
NESTS = {
    "one": RANDOM.normal(size=(7, 3)).astype("float32"),
    "scalars": np.arange(7),
    "pair": (RANDOM.integers(0, 256, (7, 2, 2)).astype("uint8"), np.arange(7) > 3),
    "named": {"b": np.ones((7, 1), "float16"), "a": np.arange(7, dtype="int32")},
}


@pytest.mark.parametrize("name", NESTS)
def test_arrays_give_what_tensors_of_them_give(name):
    columns, places = NESTS[name], tf.constant([5, 0, 5], tf.int64)
    held, copied = ArrayRows(columns), tensor_rows(columns)
    assert held.count == copied.count == 7
    assert held.digest() == copied.digest()
    graph = tf.function(held.gather).get_concrete_function(places)
    for found in (held.gather(places), graph(places)):
        tf.nest.map_structure(
            np.testing.assert_array_equal, found, copied.gather(places)
        )
    for array, tensor in zip(
        tf.nest.flatten(columns), tf.nest.flatten(graph.structured_outputs), strict=True
    ):
        assert tensor.shape[1:] == array.shape[1:] and tensor.dtype == array.dtype


def test_large_arrays_of_numbers_are_held(monkeypatch):
    assert isinstance(held_rows(NESTS["pair"]), TensorRows)
    assert isinstance(held_rows(np.zeros([2**24 + 1], "float32")), ArrayRows)
    monkeypatch.setattr(rows, "_COPY_LIMIT", 1)
    assert isinstance(held_rows(np.array([b"a", b"b"], object)), TensorRows)
    assert isinstance(held_rows(NESTS["named"]), ArrayRows)


def halved(raw):
    return raw / 2


@pytest.mark.parametrize("preprocess", [None, halved])
def test_training_is_the_same_with_large_arrays(monkeypatch, numbers, preprocess):
    x, y = numbers
    options = Options(4, seed=3, preprocess=preprocess)
    weights = np.linspace(0, 1, len(y))
    given = []
    for most in (2**26, 1):
        monkeypatch.setattr(rows, "_COPY_LIMIT", most)
        feed = make_feed(x, y, weights, options)
        given.append(
            [list(feed.batches(epoch).as_numpy_iterator()) for epoch in (0, 1)]
        )
        assert feed.examples == len(y)
    tf.nest.map_structure(np.testing.assert_array_equal, *given)


def test_fit_ends_with_the_same_weights(monkeypatch, numbers):
    ended = []
    for most in (2**26, 1):
        monkeypatch.setattr(rows, "_COPY_LIMIT", most)
        model = make_plain_model()
        model.compile("adam", "sparse_categorical_crossentropy")
        fit(model, *numbers, epochs=2, validation_data=numbers, verbose=0)
        ended.append(model.get_weights())
    tf.nest.map_structure(np.testing.assert_array_equal, *ended)
