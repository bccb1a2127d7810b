import numpy as np
import pytest

from tlkit.data import stratified_split
from tlkit.data.examples.splits import random_order
from tlkit.errors import DataError


def _counts(labels, indices, classes):
    return np.bincount(np.asarray(labels)[indices], minlength=classes).tolist()


def test_shares_are_exact_in_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    train, validation, test = stratified_split(labels, (0.1, 0.2), seed=3)
    assert _counts(labels, train, 3) == [70, 35, 7]
    assert _counts(labels, validation, 3) == [10, 5, 1]
    assert _counts(labels, test, 3) == [20, 10, 2]


def test_splits_are_sorted_and_hold_every_index_once():
    labels = np.random.default_rng(0).integers(0, 7, 1000)
    splits = stratified_split(labels, (0.15, 0.25), seed=1)
    for indices in splits:
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
    assert np.sort(np.concatenate(splits)).tolist() == list(range(1000))


def test_the_indices_of_a_seed_never_change():
    labels = np.tile([0, 1], 8)
    splits = stratified_split(labels, (0.25, 0.25), seed=0)
    assert [indices.tolist() for indices in splits] == [
        [1, 4, 5, 7, 9, 10, 12, 14],
        [2, 3, 8, 11],
        [0, 6, 13, 15],
    ]
    assert random_order(8, seed=0).tolist() == [3, 2, 4, 5, 7, 6, 0, 1]


def test_another_seed_gives_another_split():
    labels = np.tile([0, 1], 500)
    first, second = (stratified_split(labels, (0.2,), seed=seed) for seed in (0, 1))
    assert len(np.intersect1d(first[1], second[1])) < 80  # 40 by chance, of 200


def test_a_fifth_of_five_thousand_in_ten_classes():
    labels = np.repeat(np.arange(10), 500)
    train, test = stratified_split(labels, (0.2,), seed=0)
    assert _counts(labels, train, 10) == [400] * 10
    assert _counts(labels, test, 10) == [100] * 10


def test_numbers_of_examples_and_none():
    labels = np.repeat([0, 1], [60, 40])
    train, validation, test = stratified_split(labels, (10, 0))
    assert [len(train), len(validation), len(test)] == [90, 10, 0]
    assert _counts(labels, validation, 2) == [6, 4]


def test_remainders_go_to_the_largest():
    labels = np.repeat([0, 1, 2], [33, 33, 34])
    _, held_out = stratified_split(labels, (10,))
    assert _counts(labels, held_out, 3) == [3, 3, 4]


def test_one_example_is_only_trained_on():
    labels = np.repeat([0, 1], [50, 1])
    train, validation, test = stratified_split(labels, (0.4, 0.4), seed=5)
    assert _counts(labels, train, 2)[1] == 1
    assert len(validation) == len(test) == 20


def test_three_examples_are_in_every_split():
    labels = np.repeat([0, 1, 2], [1000, 3, 3])
    for indices in stratified_split(labels, (0.1, 0.1)):
        assert _counts(labels, indices, 3)[1:] == [1, 1]


def test_three_examples_where_the_split_has_no_room():
    labels = np.repeat(np.arange(30), 3)
    train, validation, test = stratified_split(labels, (10, 10))
    assert [len(train), len(validation), len(test)] == [70, 10, 10]
    assert min(_counts(labels, train, 30)) >= 1


def test_a_share_is_not_rounded_to_none():
    train, held_out = stratified_split(np.array([0, 0, 1, 1]), (0.1,))
    assert len(held_out) == 1
    assert len(train) == 3


@pytest.mark.parametrize("size", [-1, -0.1, 1.0, 1.5, "a fifth", True, None, np.nan])
def test_a_size_that_is_none(size):
    with pytest.raises(DataError, match=r"fraction of the examples in \[0, 1\)"):
        stratified_split(np.array([0, 1]), (size,))


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, True])
def test_a_seed_that_is_none(seed):
    with pytest.raises(DataError, match="seed must be an integer of 0 or more"):
        stratified_split(np.array([0, 0, 1, 1]), (0.2,), seed=seed)


def test_too_little_is_left_for_training():
    labels = np.repeat([0, 1], [10, 10])
    with pytest.raises(DataError, match=r"take 19 of 20 examples.*2 classes must keep"):
        stratified_split(labels, (10, 9))
    train, *_ = stratified_split(labels, (9, 9))
    assert _counts(labels, train, 2) == [1, 1]


def test_any_sizes_give_what_was_asked():
    rng = np.random.default_rng(7)
    for _ in range(200):
        classes = int(rng.integers(2, 9))
        labels = np.repeat(np.arange(classes), rng.integers(1, 30, classes))
        sizes = [int(size) for size in rng.integers(0, 8, 2)]
        if sum(sizes) > len(labels) - classes:
            continue
        train, validation, test = stratified_split(labels, sizes, seed=2)
        assert [len(validation), len(test)] == sizes
        assert min(_counts(labels, train, classes)) >= 1
        together = np.concatenate([train, validation, test])
        assert np.sort(together).tolist() == list(range(len(labels)))
        wanted = sum(size > 0 for size in sizes)
        enough = np.bincount(labels) > wanted
        for indices, size in zip((validation, test), sizes, strict=True):
            if size >= enough.sum():
                assert np.array(_counts(labels, indices, classes))[enough].all()
