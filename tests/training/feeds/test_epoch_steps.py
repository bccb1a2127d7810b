"""Epochs of `steps_per_epoch` batches go on where the one before ended."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import DataError
from tlkit.training.feeds.array_rows import tensor_rows
from tlkit.training.feeds.epoch_steps import with_steps
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import make_feed

X = np.arange(12)
OPTIONS = Options(2, seed=4)
DATASET = tf.data.Dataset.from_tensor_slices((X, X)).batch(2)


def numbers(dataset):
    return [inputs.tolist() for inputs, *_ in dataset.as_numpy_iterator()]


def test_a_pass_over_arrays_has_several_epochs():
    whole = make_feed(X, X, None, OPTIONS)
    feed = with_steps(whole, 2)
    assert feed.steps == 2 and feed.examples == 12 and not feed.continues
    epochs = [numbers(feed.batches(epoch)) for epoch in range(4)]
    assert sum(epochs[:3], []) == numbers(whole.batches(0))
    assert epochs[3] == numbers(whole.batches(1))[:2]
    assert numbers(feed.batches(1, skip=1)) == epochs[1][1:]
    assert numbers(feed.batches(None)) == numbers(whole.batches(None))
    cached = feed.with_inputs(tensor_rows(X), X, ())
    assert numbers(cached.batches(2)) == epochs[2]


def test_a_dataset_goes_on_and_begins_again():
    feed = with_steps(make_feed(DATASET, None, None, OPTIONS), 3, first_epoch=2)
    assert feed.continues and feed.steps == 3
    batches = iter(feed.batches(2, skip=6).as_numpy_iterator())  # 6 were before
    first = [next(batches)[0].tolist() for _ in range(8)]
    assert first == [*numbers(DATASET), [0, 1], [2, 3]]


def test_endless_data_goes_on_without_a_number_too():
    feed = with_steps(make_feed(DATASET.repeat(), None, None, OPTIONS), None)
    assert feed.continues and feed.steps == math.inf
    feed = make_feed(DATASET, None, None, OPTIONS)
    assert with_steps(feed, None) is feed


def test_an_epoch_that_would_end_early_is_an_error():
    with pytest.raises(DataError, match=r"x\.repeat\(\)\), or type steps_per_epoch=3"):
        with_steps(make_feed(DATASET, None, None, OPTIONS), 4)
    with pytest.raises(DataError, match="Leave it out, or type steps_per_epoch=6"):
        with_steps(make_feed(X, X, None, OPTIONS), 7)
