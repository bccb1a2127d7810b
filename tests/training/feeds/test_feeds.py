"""Feeds give the same batches of the same examples, whatever they are made of."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.conftest import LABELS
from tlkit import models
from tlkit.errors import DataError
from tlkit.training.feeds.array_rows import tensor_rows
from tlkit.training.feeds.augmented_feed import AugmentedFeed
from tlkit.training.feeds.class_weighted_feed import weigh_classes
from tlkit.training.feeds.dataset_feed import DatasetFeed
from tlkit.training.feeds.feed import Options, WorkerPart
from tlkit.training.feeds.fit_inputs import count_steps, input_notes, make_feed
from tlkit.training.feeds.rows_feed import RowsFeed
from tlkit.training.feeds.splits_feed import SplitsFeed
from tlkit.training.feeds.stacked_views import stacked
from tlkit.training.plans.cache_plan import ActivationCache, is_cacheable

PLAIN = Options(4, seed=5)


def batches(feed, epoch=None, **options):
    return list(feed.batches(epoch, **options).as_numpy_iterator())


def same(one, other):
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)


@pytest.fixture
def image_options(make_model):
    return Options(4, seed=5, preprocess=models.preprocessing(make_model()))


def test_each_input_has_its_feed(numbers, splits, image_options):
    dataset = tf.data.Dataset.from_tensor_slices(numbers)
    assert type(make_feed(*numbers, None, PLAIN)) is RowsFeed
    assert type(make_feed(dataset, None, None, PLAIN)) is SplitsFeed
    assert type(make_feed(dataset.batch(4), None, None, PLAIN)) is DatasetFeed
    augmented = dataclasses.replace(
        image_options, augmentation=tlkit.data.Augmentation()
    )
    assert type(make_feed(splits.train, None, None, augmented)) is AugmentedFeed
    with pytest.raises(DataError, match="augmentation is for images"):
        make_feed(
            dataset,
            None,
            None,
            dataclasses.replace(PLAIN, augmentation=tlkit.data.Augmentation()),
        )


def test_rows_and_single_examples_come_in_the_same_order(numbers):
    rows = make_feed(*numbers, None, PLAIN)
    dataset = tf.data.Dataset.from_tensor_slices(numbers)
    single = make_feed(dataset, None, None, PLAIN)
    part = WorkerPart(2, 1, 2)
    for how in ({}, {"skip": 1}, {"skip": 1, "part": part}):
        for epoch in (None, 0, 1):
            same(batches(rows, epoch, **how), batches(single, epoch, **how))
    assert rows.steps == single.steps == 3
    assert rows.examples == single.examples == 11
    same(rows.labels_and_weights(), single.labels_and_weights())


def test_other_inputs_of_the_same_examples_come_in_the_same_order(splits):
    feed = make_feed(splits.train, None, None, PLAIN)
    labels, weights = feed.labels_and_weights()
    indices = feed.with_inputs(tensor_rows(np.arange(18)), labels, weights)
    for epoch in (None, 0, 1):
        pairs = zip(batches(feed, epoch), batches(indices, epoch), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one[1], other[1])
            np.testing.assert_array_equal(labels[other[0]], other[1])


def test_batches_of_unknown_number_are_counted(numbers):
    dataset = tf.data.Dataset.from_tensor_slices(numbers)
    feed = make_feed(dataset.filter(lambda x, y: y < 3).batch(4), None, None, PLAIN)
    assert feed.steps is None
    counted = count_steps(feed)
    assert counted.steps == 3 and feed.steps is None
    same(batches(counted, 0), batches(feed, 0))
    assert count_steps(counted) is counted


# === Class weights ===


def test_every_way_to_the_examples_has_class_weights(splits, image_options):
    weights = {"a": 3.0, 2: 0.0}
    named = dataclasses.replace(image_options, label_index=LABELS.index)
    augmented = dataclasses.replace(named, augmentation=tlkit.data.Augmentation())
    expected = np.array([3.0, 1.0, 0.0], np.float32)
    feed = make_feed(splits.train, None, None, named)
    weighted = weigh_classes(feed, weights, named)
    labels, found = weighted.labels_and_weights()
    np.testing.assert_array_equal(found, expected[labels])
    assert weighted.digest() == feed.digest()
    views = weigh_classes(
        make_feed(splits.train, None, None, augmented), weights, named
    )
    for source in (weighted.batches(0), views.view(1), stacked(views, 2).batches(None)):
        for _, labels, found in source.as_numpy_iterator():
            np.testing.assert_array_equal(found, expected[labels])


# === Streams ===


def test_a_stream_is_not_cached_unless_asked(splits):
    view = make_feed(splits.train, None, None, PLAIN)
    stream = make_feed(splits.train.map(lambda *pair: pair), None, None, PLAIN)
    (note,) = input_notes(view, stream)
    assert "The validation examples may differ between epochs" in note
    assert input_notes(view, view) == []
    (note,) = input_notes(weigh_classes(stream, {0: 2.0}, PLAIN), view)
    assert "read as a stream: they are shuffled within a buffer of 18" in note
    assert not is_cacheable(view, stream, ActivationCache("auto"))
    assert not is_cacheable(stream, view, ActivationCache("auto"))
    assert is_cacheable(stream, None, ActivationCache("memory"))


def test_fit_says_that_a_mapped_split_is_read_as_a_stream(make_model, splits, capsys):
    said = []
    for data in (splits.train, splits.train.map(lambda raw, label: (raw, label))):
        keras.utils.set_random_seed(0)
        schedule = tlkit.head_only(epochs=2)
        tlkit.fit(make_model(), data, schedule=schedule, cache="auto", verbose=1)
        said.append(capsys.readouterr().err)
    assert "as a stream" not in said[0] and "as a stream" in said[1]


def test_batched_validation_data_ends_the_cache_and_is_said(make_model, splits, capsys):
    batched = splits.validation.batch(4)
    schedule = tlkit.head_only(epochs=2)
    report = tlkit.fit(
        make_model(),
        splits.train,
        validation_data=batched.map(lambda x, y: (tf.cast(x, tf.float32), y)),
        schedule=schedule,
        cache="memory",
    )
    assert len(report.history["val_loss"]) == 2
    assert "so no activations are cached" in capsys.readouterr().err
