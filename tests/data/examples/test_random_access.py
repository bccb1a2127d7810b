import dataclasses
import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.image_files import write_classes
from tests.data.labeled import examples, numbered, numbers, streaming
from tlkit.data.examples.example_order import order
from tlkit.data.examples.random_access import (
    examples_of,
    is_repeatable,
    map_examples,
    mark_repeatable,
    read_order,
    tensor_examples,
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
def test_an_order_that_is_read_by_index_is_that_of_a_stream(how, skip):
    splits = numbered([19, 10])
    every = examples_of(splits.train)
    chosen = order(29, batch_size=8, **how)
    marked = "fill" in how
    read = read_order(every, chosen, marked=marked).batch(8 // how.get("workers", 1))
    found = [[part.tolist() for part in batch] for batch in read.as_numpy_iterator()]
    expected = _batches(streaming(splits).train, **how)
    assert found == expected
    assert _batches(splits.train, skip=skip, **how) == expected[skip:]


def test_images_of_other_indices_are_not_read(tmp_path):
    written = write_classes(tmp_path, {"a": 6, "b": 6})
    paths = list(written)
    images = tensor_examples(paths, [0] * 6 + [1] * 6, tf.io.read_file)
    for place in set(range(12)) - {7, 2}:
        (tmp_path / paths[place]).unlink()
    found = examples(images.read(np.array([7, 2])))
    assert found == [(written[paths[7]], 1), (written[paths[2]], 0)]


def test_mapped_examples_keep_their_random_access():
    dataset = numbered([2, 2]).train
    index = np.array([5, 3], np.int32)
    mapped = map_examples(
        dataset,
        lambda raw, label: (raw * 2, tf.gather(index, label)),
        index[examples_of(dataset).labels],
    )
    expected = [([0, 0], 5), ([2, 0], 5), ([4, 2], 3), ([6, 2], 3)]
    assert examples(mapped) == expected
    assert examples_of(mapped).labels.tolist() == [5, 5, 3, 3]
    assert examples(examples_of(mapped).read(np.array([3, 1]))) == [
        expected[3],
        expected[1],
    ]


def test_a_view_is_known_and_what_is_derived_from_it_is_not():
    every = tensor_examples([1, 2, 3], [0, 0, 1])
    view = every.dataset()
    assert examples_of(view) is every and len(every) == 3
    for derived in (
        view.map(lambda *pair: pair),
        view.take(2),
        view.shuffle(3),
        tf.data.Dataset.range(3),
    ):
        assert examples_of(derived) is None and not is_repeatable(derived)


def test_views_and_their_examples_are_freed():
    every = tensor_examples([1, 2, 3], [0, 0, 1]).map(lambda raw, label: (raw, label))
    view = map_examples(every.pick([2, 0]).dataset(), lambda raw, label: (raw, label))
    dead = weakref.ref(view), weakref.ref(examples_of(view)), weakref.ref(every)
    del view, every
    gc.collect()
    assert [reference() for reference in dead] == [None] * 3


def _shards(splits, folder):
    folder = tlkit.data.write_shards(splits, folder / "shards", verbose=0)
    return tlkit.data.tfrecords(folder)


@pytest.mark.parametrize(
    "derive",
    [
        lambda splits, folder: tlkit.data.take_per_class(splits, 2),
        lambda splits, folder: tlkit.data.balanced(splits),
        lambda splits, folder: tlkit.data.mixture([splits, splits]),
        _shards,
        lambda splits, folder: tlkit.data.balanced(_shards(splits, folder)),
        lambda splits, folder: dataclasses.replace(splits, labels=("x", "y")),
    ],
)
def test_splits_of_tlkit_have_random_access(tmp_path, derive):
    splits = derive(numbered([7, 3]), tmp_path)
    every, expected = examples_of(splits.train), numbers(splits.train)
    indices = np.array([3, 0, 3, len(every) - 1])
    assert len(every) == splits.sizes["train"]
    assert numbers(every.read(indices)) == [expected[index] for index in indices]
    mapped = dataclasses.replace(splits, train=splits.train.map(lambda *pair: pair))
    assert examples_of(mapped.train) is None


def test_a_repeatable_stream_stays_so_in_a_mixture():
    splits = streaming(numbered([7, 3]))
    assert not is_repeatable(tlkit.data.mixture([splits, splits]).train)
    mark_repeatable(splits.train)
    mixed = tlkit.data.mixture([splits, numbered([2, 2])], weights=[1, 1]).train
    assert is_repeatable(mixed) and examples_of(mixed) is None
    assert is_repeatable(map_examples(splits.train, lambda *pair: pair))
