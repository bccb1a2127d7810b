"""Training on shards, on a few examples, on classes made even, and on mixtures."""

import keras
import numpy as np
import pytest

import tlkit
from tests import tiny
from tests.data.image_files import write_classes


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny.write_image_encoder(tmp_path_factory.mktemp("encoder"), size=8)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_classes(folder, {"a": 30, "b": 12})
    return tlkit.data.image_folder(folder, verbose=0)


@pytest.fixture(scope="module")
def shards(splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return tlkit.data.write_shards(splits, folder, shard_size=3000, verbose=0)


def _fit(encoder, splits, **options):
    keras.utils.set_random_seed(0)
    model = tlkit.image_classifier(encoder, splits.labels)
    schedule = tlkit.head_only(epochs=2)
    report = tlkit.fit(
        model, splits, schedule=schedule, batch_size=8, seed=3, verbose=0, **options
    )
    return model.get_weights(), report


def test_shards_train_as_the_folder_does(encoder, splits, shards):
    class_weight = tlkit.data.class_weights(splits)
    expected, report = _fit(encoder, splits, class_weight=class_weight)
    shards = tlkit.data.tfrecords(shards)
    weights, again = _fit(encoder, shards, class_weight=class_weight)
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.history == report.history


def test_even_classes_train(encoder, splits, shards):
    even = tlkit.data.balanced(tlkit.data.tfrecords(shards))
    assert even.sizes["train"] == 2 * tlkit.data.class_counts(splits)["a"]
    weights, _ = _fit(encoder, even)
    expected, _ = _fit(encoder, tlkit.data.balanced(splits))
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_mixture_and_fewer_examples_than_a_batch_train(encoder, splits, shards):
    few = tlkit.data.take_per_class(splits, 1)
    assert few.sizes["train"] == 2
    mixed = tlkit.data.mixture([few, tlkit.data.tfrecords(shards)], weights=[1, 3])
    for data in (few, mixed):
        _, report = _fit(encoder, data)
        assert np.isfinite(report.history["loss"]).all()
        assert len(report.history["loss"]) == 2
