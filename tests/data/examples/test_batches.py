from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tests.data.image_files import write_classes
from tlkit.data.examples.batches import buffer_size
from tlkit.errors import DataError


def _numbers(count):
    return tf.data.Dataset.range(count).map(lambda n: (n, tf.cast(n, tf.int32)))


def _order(**options):
    dataset = tlkit.data.batches(_numbers(50), None, batch_size=8, **options)
    return np.concatenate([labels for _, labels in dataset]).tolist()


def test_batches_in_order_with_a_remainder():
    dataset = tlkit.data.batches(_numbers(10), None, batch_size=4)
    assert [x.numpy().tolist() for x, _ in dataset] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
    assert int(dataset.cardinality()) == 3
    dataset = tlkit.data.batches(_numbers(10), None, batch_size=4, drop_remainder=True)
    assert [len(x) for x, _ in dataset] == [4, 4]
    assert dataset.element_spec[0].shape == (4,)


def test_every_epoch_has_its_own_order_and_repeats_it():
    first = _order(shuffle=True, seed=1, epoch=0)
    assert sorted(first) == list(range(50))
    assert first != list(range(50))
    assert first == _order(shuffle=True, seed=1, epoch=0)
    assert first != _order(shuffle=True, seed=1, epoch=1)
    assert first != _order(shuffle=True, seed=2, epoch=0)
    # As a sum of the two, these would be the same.
    assert _order(shuffle=True, seed=1, epoch=2) != _order(
        shuffle=True, seed=2, epoch=1
    )


def test_going_through_twice_gives_the_same():
    dataset = tlkit.data.batches(_numbers(50), None, batch_size=50, shuffle=True)
    first, again = (next(iter(dataset))[1].numpy().tolist() for _ in range(2))
    assert first == again


def test_pictures_are_prepared_one_by_one(tmp_path):
    write_classes(tmp_path, {"a": 5, "b": 5})
    splits = tlkit.data.image_folder(tmp_path, validation=0, test=0, verbose=0)

    def preprocess(raw):
        assert raw.shape == ()
        picture = tf.io.decode_image(raw, channels=3, expand_animations=False)
        return tf.image.resize(picture, (4, 4))

    preprocess.per_example = True
    dataset = tlkit.data.batches(splits.train, preprocess, batch_size=4)
    found = list(dataset)
    assert [x.shape for x, _ in found] == [(4, 4, 4, 3), (4, 4, 4, 3), (2, 4, 4, 3)]
    raws = list(splits.train.as_numpy_iterator())
    for (raw, label), picture, found_label in zip(
        raws,
        np.concatenate([x for x, _ in found]),
        np.concatenate([y for _, y in found]),
        strict=True,
    ):
        np.testing.assert_array_equal(preprocess(tf.constant(raw)), picture)
        assert label == found_label


def test_a_function_of_the_users_own_may_branch_on_tensors():
    def halve_even(raws):
        if tf.reduce_sum(raws) % 2 == 0:
            return raws // 2
        return raws

    numbers = tf.data.Dataset.from_tensor_slices(([2, 4, 6, 7], [0, 0, 0, 0]))
    found = tlkit.data.batches(numbers, halve_even, batch_size=2)
    assert [raws.numpy().tolist() for raws, _ in found] == [[1, 2], [6, 7]]


def test_texts_are_prepared_in_batches():
    splits = tlkit.data.arrays(["a b", "c", "d e f"], [0, 1, 1], validation=0, test=0)

    def preprocess(raws):
        assert raws.shape.rank == 1
        words = tf.strings.split(raws)
        return {"words": words.to_tensor(""), "lengths": words.row_lengths()}

    dataset = tlkit.data.batches(splits.train, preprocess, batch_size=3)
    inputs, labels = next(iter(dataset))
    assert inputs["words"].shape == (3, 3)
    texts = [b" ".join(row).strip() for row in inputs["words"].numpy()]
    found = list(zip(texts, labels.numpy().tolist(), strict=True))
    assert found == [(raw, label) for raw, label in splits.train.as_numpy_iterator()]


def test_weights_are_passed_on():
    dataset = tf.data.Dataset.from_tensor_slices(([1, 2], [0, 1], [0.5, 2.0]))
    batched = tlkit.data.batches(dataset, lambda x: x * 10, batch_size=2)
    x, y, weights = next(iter(batched))
    assert x.numpy().tolist() == [10, 20]
    assert y.numpy().tolist() == [0, 1]
    assert weights.numpy().tolist() == [0.5, 2.0]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None, "8"])
def test_batch_sizes(batch_size):
    with pytest.raises(DataError, match="batch_size must be an integer of 1 or more"):
        tlkit.data.batches(_numbers(3), None, batch_size=batch_size)


@pytest.mark.parametrize("name", ["seed", "epoch"])
def test_negative_seeds(name):
    with pytest.raises(DataError, match="must be an integer of 0 or more"):
        tlkit.data.batches(_numbers(3), None, batch_size=1, shuffle=True, **{name: -1})


def test_the_buffer_is_bounded():
    strings = tf.data.Dataset.from_tensors(("", 0)).repeat(10**7)
    assert buffer_size(strings, SimpleNamespace(per_example=True)) == 2048
    assert buffer_size(strings, None) == 131_072
    pictures = tf.data.Dataset.from_tensors((tf.zeros((512, 512, 4)), 0)).repeat(10**6)
    assert buffer_size(pictures, None) == 64
    assert buffer_size(pictures.take(7), None) == 7


def test_texts_of_similar_lengths_come_together_and_none_is_lost():
    texts = np.array(["x" * (i % 50 + 1) for i in range(1003)])
    dataset = tf.data.Dataset.from_tensor_slices((texts, np.arange(1003)))
    lengths = lambda raws: tf.strings.length(raws)

    def spread(**options):
        batches = list(
            tlkit.data.batches(
                dataset, lengths, batch_size=8, shuffle=True, seed=1, **options
            ).as_numpy_iterator()
        )
        numbers = np.concatenate([labels for _, labels in batches])
        assert sorted(numbers) == list(range(1003))
        assert sum(len(labels) < 8 for _, labels in batches) == 1
        return np.mean([np.ptp(sizes) for sizes, _ in batches]), numbers

    grouped, order = spread()
    mixed, _ = spread(similar_lengths=False)
    assert grouped < mixed / 5
    assert list(order) == list(spread()[1])
    assert list(order) != list(spread(epoch=1)[1])
