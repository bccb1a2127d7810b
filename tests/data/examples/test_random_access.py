import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.image_files import write_classes
from tests.data.labeled import examples, numbered, numbers, streaming
from tlkit.data.examples.example_order import order
from tlkit.data.examples.random_access import (
    access_of,
    attach_access,
    map_with_access,
    read_order,
    tensor_access,
)

HOW = [
    {},
    {"shuffle": True, "seed": 4, "epoch": 2},
    {"shuffle": True, "workers": 2, "worker": 1},
    {"shuffle": True, "workers": 4, "worker": 3, "fill": 4},
    {"fill": 4},
]


def _batches(dataset, **how):
    return [
        [part.tolist() for part in batch]
        for batch in tlkit.data.batches(
            dataset, None, batch_size=8, **how
        ).as_numpy_iterator()
    ]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("skip", [0, 2])
def test_an_order_that_is_read_by_place_is_that_of_a_stream(how, skip):
    splits = numbered([19, 10])
    access = access_of(splits.train)
    chosen = order(29, batch_size=8, **how)
    marked = "fill" in how
    read = read_order(access, chosen, marked=marked).batch(8 // how.get("workers", 1))
    found = [[part.tolist() for part in batch] for batch in read.as_numpy_iterator()]
    expected = _batches(streaming(splits).train, **how)
    assert found == expected
    assert _batches(splits.train, skip=skip, **how) == expected[skip:]


def test_pictures_that_are_not_asked_for_are_not_read(tmp_path):
    written = write_classes(tmp_path, {"a": 6, "b": 6})
    paths = list(written)
    access = tensor_access(paths, [0] * 6 + [1] * 6, tf.io.read_file)
    for place in set(range(12)) - {7, 2}:
        (tmp_path / paths[place]).unlink()
    found = examples(access.read(np.array([7, 2])))
    assert found == [(written[paths[7]], 1), (written[paths[2]], 0)]


def test_what_is_mapped_keeps_its_access():
    dataset = numbered([2, 2]).train
    index = np.array([5, 3], np.int32)
    mapped = map_with_access(
        dataset, lambda raw, label: (raw * 2, tf.gather(index, label)), index
    )
    expected = [([0, 0], 5), ([2, 0], 5), ([4, 2], 3), ([6, 2], 3)]
    assert examples(mapped) == expected
    assert access_of(mapped).labels.tolist() == [5, 5, 3, 3]
    assert examples(access_of(mapped).read(np.array([3, 1]))) == [
        expected[3],
        expected[1],
    ]
    assert access_of(dataset.map(lambda *pair: pair)) is None


def test_shards_keep_their_order_of_an_epoch_when_mapped(tmp_path):
    tlkit.data.write_shards(
        numbered([30, 30]), tmp_path / "shards", shard_size=900, verbose=0
    )
    dataset = tlkit.data.tfrecords(tmp_path / "shards").train
    mapped = map_with_access(dataset, lambda raw, label: (raw + 1, label))
    plain, shifted = (
        numbers(access_of(d).shuffled(seed=1, epoch=1)) for d in (dataset, mapped)
    )
    assert shifted == [number + 1 for number in plain]


def test_access_is_attached_to_the_dataset_itself():
    dataset = tf.data.Dataset.range(3)
    access = tensor_access([1, 2, 3], [0, 0, 1])
    assert attach_access(dataset, access) is dataset
    assert access_of(dataset) is access
    assert access_of(tf.data.Dataset.range(3)) is None
