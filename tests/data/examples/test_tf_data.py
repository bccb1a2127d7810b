"""Nothing that is read for training waits for the tuner of `tf.data`."""

import numpy as np
import tensorflow as tf

import tlkit
from tlkit.data.examples.tf_data import deterministic, untuned
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import make_feed

OPTIONS = Options(batch_size=4)


def tuned(dataset):
    return dataset.options().autotune.enabled


def test_splits_and_batches_have_no_tuner():
    x, y = np.zeros((12, 3), np.float32), np.arange(12) % 2
    splits = tlkit.data.arrays(x, y, labels=["a", "b"])
    assert tuned(splits.train) is False
    assert tuned(tlkit.data.batches(splits.train, None, batch_size=4)) is False


def test_feeds_have_no_tuner():
    x, y = np.zeros((12, 3), np.float32), np.arange(12) % 2
    batched = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    feeds = make_feed(x, y, None, OPTIONS), make_feed(batched, None, None, OPTIONS)
    for feed in feeds:
        assert [tuned(feed.batches(epoch)) for epoch in (None, 0)] == [False, False]


def test_who_asks_for_the_tuner_has_it():
    options = tf.data.Options()
    options.autotune.enabled = True
    dataset = tf.data.Dataset.range(3).with_options(options)
    assert tuned(untuned(dataset)) is True
    assert tuned(deterministic(dataset)) is True
    assert deterministic(dataset).options().deterministic is True
