"""Data that may differ between epochs is never taken for constant."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.conftest import LABELS
from tlkit.training.arguments import feed_options
from tlkit.training.data_arguments import DataArguments, make_feeds
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import input_notes, make_feed
from tlkit.training.feeds.splits_feed import SplitsFeed
from tlkit.training.plans.cache_plan import ActivationCache, is_cacheable

AUTO = ActivationCache("auto")


def noise(raw, label):
    return tf.cast(raw, tf.float32) + tf.random.normal([]), label


DERIVED = {
    "map": lambda train: train.map(noise),
    "cache": lambda train: train.map(noise).cache(),
    "shuffle": lambda train: train.shuffle(10),
    "zip": lambda train: tf.data.Dataset.zip(train, train).map(lambda one, other: one),
    "flat_map": lambda train: train.flat_map(
        lambda *pair: tf.data.Dataset.from_tensors(noise(*pair))
    ),
    "with_options": lambda train: train.with_options(tf.data.Options()),
    "arrays of the user": lambda train: tf.data.Dataset.from_tensor_slices(
        (np.zeros((9, 8, 8, 3), "uint8"), np.arange(9) % 3)
    ).map(noise),
}


@pytest.mark.parametrize("name", DERIVED)
def test_what_a_user_derives_may_differ(make_model, splits, name):
    model = make_model()
    derived = dataclasses.replace(splits, train=DERIVED[name](splits.train))
    for data in (
        DataArguments(derived),
        DataArguments(derived.train, validation_data=splits.validation),
        DataArguments(splits.train, validation_data=derived.train),
    ):
        feeds = make_feeds(model, data, feed_options(model, batch_size=4))
        assert not is_cacheable(*feeds, AUTO)


def test_what_tlkit_derives_does_not_differ(make_model, splits):
    model = make_model()
    few = tlkit.data.take_per_class(splits, 2)
    for data in (splits, few, tlkit.data.balanced(splits)):
        data = DataArguments(data, validation_steps=1)
        feeds = make_feeds(model, data, feed_options(model, batch_size=4))
        assert is_cacheable(*feeds, AUTO) and feeds[1].examples == 4
    mixed = tlkit.data.mixture(
        [splits, dataclasses.replace(splits, train=splits.train.map(lambda *p: p))]
    )
    feeds = make_feeds(model, DataArguments(mixed), feed_options(model, batch_size=4))
    assert not is_cacheable(*feeds, AUTO)


def test_batches_of_a_user_are_not_cached_and_the_notes_say_so(splits):
    view = make_feed(splits.train, None, None, Options(4))
    batches = iter([(np.zeros((2, 4)), [0, 1])])
    batches = make_feed(batches, None, None, Options(4), once=True)
    assert not is_cacheable(batches, None, ActivationCache("memory"))
    (note,) = input_notes(batches, view)
    assert "training examples may differ" in note and "batches of your own" in note
    assert input_notes(batches, view, caches=False) == []
    stream = splits.train.map(lambda *pair: pair)
    stream = make_feed(stream, None, None, Options(4, shuffle=False))
    assert "they are in their order" in input_notes(stream, None)[0]


def test_texts_that_a_user_changes_are_tokenized_in_each_epoch():
    class Preprocess:
        per_example = False

        def tokenize(self, texts):
            raise AssertionError("tokenized once for all epochs")

        def __call__(self, texts):
            return tf.strings.length(texts)

    texts = tf.data.Dataset.from_tensor_slices((["a b", "c"], [0, 1]))
    shorter = lambda text, label: (tf.strings.substr(text, 0, 1), label)
    options = Options(2, preprocess=Preprocess(), label_index=LABELS.index, classes=3)
    feed = make_feed(texts.map(shorter), None, None, options)
    assert type(feed) is SplitsFeed and feed.stream_buffer == 2
    (batch,) = feed.batches(None).as_numpy_iterator()
    assert batch[0].tolist() == [1, 1]
