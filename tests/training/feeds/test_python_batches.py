"""Generators, `PyDataset`s and data loaders become feeds."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.training.feeds.data_errors import naming_data_errors
from tlkit.training.feeds.feed import Options, WorkerPart
from tlkit.training.feeds.fit_inputs import make_feed

X, Y = np.arange(48.0).reshape(24, 2), np.arange(24)
PLAIN = Options(4, seed=3)


class Batches(keras.utils.PyDataset):
    """Four batches of six examples."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = []

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(6 * index, 6 * index + 6)
        return {"x": X[part]}, Y[part], np.ones(6)

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class Loader:
    """Loads as torch's `DataLoader` does: lists of tensors that have `cpu`."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def cpu(self):
            return self.array

    def __len__(self):
        return 3

    def __iter__(self):
        for part in np.split(np.arange(24), 3):
            yield [self.Tensor(X[part]), self.Tensor(Y[part])]


def generator(batches=5):
    for number in range(batches):
        rows = np.arange(number, number + 2 + number)
        yield [X[rows], X[rows]], [1] * len(rows)


def labels(feed, epoch, **how):
    batches = feed.batches(epoch, **how).as_numpy_iterator()
    return [labels.tolist() for _, labels, *_ in batches]


def test_a_py_dataset_is_shuffled_by_batch_and_can_leave_batches_out():
    feed = make_feed(Batches(workers=2), None, None, PLAIN)
    inputs, spec, weights = feed.batches(0).element_spec
    assert inputs["x"] == tf.TensorSpec([None, 2], tf.float32)
    assert weights.dtype == tf.float32 and feed.steps == 4 and not feed.repeats
    in_order = [list(range(i, i + 6)) for i in range(0, 24, 6)]
    first, second = labels(feed, 0), labels(feed, 1)
    assert labels(feed, None) == in_order and in_order not in (first, second)
    assert first != second and sorted(first) == sorted(second) == in_order
    assert labels(feed, 1) == second and labels(feed, 1, skip=2) == second[2:]
    plain = make_feed(Batches(), None, None, Options(4, shuffle=False))
    assert labels(plain, 0) == in_order and plain.notes == ()
    part = labels(plain, 0, part=WorkerPart(2, 1, 2))
    assert part[0] == [1, 3, 5]


def test_a_py_dataset_is_called_around_epochs_as_in_keras():
    data = Batches(use_multiprocessing=True)
    feed = make_feed(data, None, None, PLAIN)
    for _ in range(2):
        feed.begin_epoch(), feed.end_epoch()
    assert data.calls == ["end", "begin", "end", "begin", "end"]
    assert "use_multiprocessing" in feed.notes[0]


def test_a_generator_is_read_once_and_goes_on():
    feed = make_feed(generator(), None, None, PLAIN, once=True)
    (one, other), spec, weights = feed.batches(0).element_spec
    assert one == other == tf.TensorSpec([None, 2], tf.float32) and weights == ()
    assert feed.continues and feed.steps == math.inf
    assert [len(batch) for batch in labels(feed, None)] == [2, 3]  # for shapes
    assert [len(batch) for batch in labels(feed, 0)] == [2, 3, 4, 5, 6]
    held = make_feed(generator(), None, None, PLAIN, steps=3)
    assert held.steps == 3 and labels(held, None) == labels(held, None)
    with pytest.raises(DataError, match="has 5 batches"):
        make_feed(generator(), None, None, PLAIN, steps=6)


def test_a_loader_is_read_again_in_every_epoch():
    feed = make_feed(Loader(), None, None, PLAIN)
    assert feed.steps == 3 and labels(feed, 0) == labels(feed, 1)
    assert feed.batches(0).element_spec[0].dtype == tf.float32


@pytest.mark.parametrize(
    "batches, message",
    [
        ([], "no batch"),
        ([X], "Received: a ndarray"),
        ([(X,)], "Received: a tuple of 1"),
        ([(X, Y[:5])], "Their lengths: 5, 24"),
        ([(X, 3)], "axis of examples"),
        ([(X, Y), (X[:, 0], Y)], "one dtype and rank"),
        ([(tf.sparse.from_dense(X), Y)], "dense arrays; got a SparseTensor"),
    ],
)
def test_other_batches_are_named(batches, message):
    with pytest.raises(DataError, match=message):
        make_feed(iter(batches), None, None, PLAIN, once=True)


def test_an_error_in_the_user_s_code_is_raised_as_it_is():
    class Broken(Batches):
        def __getitem__(self, index):
            return super().__getitem__(index)[:2] if index < 3 else 1 / 0

    def broken():
        yield from generator(4)
        yield X, Y[:3]

    for data, error in ((Broken(), ZeroDivisionError), (broken(), DataError)):
        feed = make_feed(data, None, None, Options(4, shuffle=False), once=True)
        with pytest.raises(error), naming_data_errors():
            list(feed.batches(0))


def test_a_generator_is_not_for_what_is_read_again():
    with pytest.raises(DataError, match="can be read only once"):
        make_feed(generator(), None, None, PLAIN)


def test_labels_beside_batches_are_an_error():
    with pytest.raises(DataError, match="Leave sample_weight out"):
        make_feed(Batches(), None, Y, PLAIN)
