from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.labeled import examples, numbered, numbers, streaming
from tlkit.data.examples.random_access import examples_of
from tlkit.errors import DataError


def _held_out(raws, ids):
    return tf.data.Dataset.from_tensor_slices((np.array(raws, np.int32), np.int32(ids)))


@pytest.fixture
def two():
    return {"big": numbered([60, 40]), "small": numbered([4, 6], start=1000)}


def _of(dataset, low, high):
    return [number for number in numbers(dataset) if low <= number < high]


WAYS = pytest.mark.parametrize(
    "way", [lambda splits: splits, streaming], ids=["by place", "streaming"]
)


@WAYS
def test_without_weights_everything_comes_once(two, way):
    mixed = tlkit.data.mixture({name: way(s) for name, s in two.items()})
    assert sorted(numbers(mixed.train)) == [*range(100), *range(1000, 1010)]
    assert int(mixed.train.cardinality()) == 110
    assert mixed.labels == ("a", "b")
    first = numbers(mixed.train)
    assert first == numbers(mixed.train) and first != sorted(first)


@WAYS
def test_weights_are_shares_and_everything_comes_at_least_once(two, way):
    two = {name: way(splits) for name, splits in two.items()}
    mixed = tlkit.data.mixture(two, weights={"small": 1, "big": 3})
    big, small = _of(mixed.train, 0, 100), _of(mixed.train, 1000, 1010)
    assert (len(big), len(small)) == (100, 33)
    assert set(big) == set(range(100))
    assert set(Counter(small).values()) == {3, 4}


@WAYS
def test_a_number_of_examples(two, way):
    two = {name: way(splits) for name, splits in two.items()}
    mixed = tlkit.data.mixture(two, weights=dict(big=0.9, small=0.1), examples=50)
    big, small = _of(mixed.train, 0, 100), _of(mixed.train, 1000, 1010)
    assert (len(big), len(set(big)), len(small), len(set(small))) == (45, 45, 5, 5)
    assert mixed.sizes == {"train": 50}


def test_shares_of_a_number_are_rounded_by_the_largest_remainders(two):
    sources = [two["big"], two["small"], numbered([5, 5], start=2000)]
    mixed = tlkit.data.mixture(sources, weights=[1, 1, 1], examples=11)
    counts = [len(_of(mixed.train, a, a + 1000)) for a in (0, 1000, 2000)]
    assert sorted(counts) == [3, 4, 4] and sum(counts) == 11


def test_the_seed_decides_which_and_the_order(two):
    drawn = [
        numbers(tlkit.data.mixture(two, examples=44, seed=seed).train)
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) != set(drawn[2])


def test_labels_are_matched_by_name():
    first = numbered([3, 2], labels=("cat", "dog"))
    second = numbered([1, 2, 3], labels=("fox", "dog", "cat"), start=100)
    for way in (lambda splits: splits, streaming):
        mixed = tlkit.data.mixture([way(first), way(second)])
        assert mixed.labels == ("cat", "dog", "fox")
        assert tlkit.data.class_counts(mixed) == {"cat": 6, "dog": 4, "fox": 1}
        names = {raw[0]: mixed.labels[label] for raw, label in examples(mixed.train)}
        assert names[100] == "fox" and names[101] == "dog" and names[105] == "cat"
        assert names[0] == "cat" and names[4] == "dog"


def test_the_other_splits_stand_one_behind_the_other():
    first = numbered([3, 2], labels=("cat", "dog"))
    second = numbered([3, 2], labels=("dog", "cat"), start=10)
    held = tlkit.data.Splits(
        second.train,
        _held_out([[7, 0], [8, 1]], [0, 1]),
        _held_out([[9, 0]], [1]),
        second.labels,
        "array",
    )
    also = tlkit.data.Splits(
        first.train, _held_out([[5, 0]], [0]), None, first.labels, "array"
    )
    mixed = tlkit.data.mixture([also, held], weights=[1, 5])
    assert examples(mixed.validation) == [([5, 0], 0), ([7, 0], 1), ([8, 1], 0)]
    assert examples(mixed.test) == [([9, 0], 0)]
    assert mixed.sizes["validation"] == 3
    assert tlkit.data.mixture([first, second]).validation is None


def test_a_mixture_can_be_read_by_place(two):
    mixed = tlkit.data.mixture(two, weights={"small": 1, "big": 1})
    expected = numbers(mixed.train)
    places = np.array([150, 3, 3, 77, 0])
    drawn = examples_of(mixed.train)
    assert numbers(drawn.read(places)) == [expected[place] for place in places]
    assert [label for _, label in examples(mixed.train)] == drawn.labels.tolist()
    even = tlkit.data.balanced(mixed)
    counts = set(tlkit.data.class_counts(even).values())
    assert len(counts) == 1


def test_data_sets_that_do_not_fit_together(two):
    with pytest.raises(DataError, match="'text' has text of string"):
        tlkit.data.mixture({**two, "text": numbered([1, 1], kind="text")})
    train = _held_out(np.zeros((4, 3)), [0, 1, 0, 1])
    other = tlkit.data.Splits(train, None, None, ("a", "b"), "array")
    with pytest.raises(DataError, match=r"'big' has array of int32 \(2,\); the train"):
        tlkit.data.mixture({**two, "other": other})
    with pytest.raises(DataError, match="at least one data set"):
        tlkit.data.mixture([])
    with pytest.raises(DataError, match="is of tlkit.data.Splits; '1' is"):
        tlkit.data.mixture([two["big"], two["big"].train])
    endless = two["big"].train.repeat()
    endless = tlkit.data.Splits(endless, None, None, ("a", "b"), "array")
    with pytest.raises(DataError, match="'1' has no known number of examples"):
        tlkit.data.mixture([two["big"], endless])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"big": 1}, "one for each of 'big', 'small'; got 'big'"),
        ([1, 2, 3], "one for each of 2 data sets"),
        ({"big": 1, "small": 0}, "numbers above 0"),
        ([1, float("inf")], "numbers above 0"),
        ([1, float("nan")], "numbers above 0"),
    ],
)
def test_weights_are_checked(two, weights, message):
    with pytest.raises(DataError, match=message):
        tlkit.data.mixture(two, weights=weights)


def test_the_number_of_examples_is_checked(two):
    for wrong in (0, 1, 3.5, True):
        with pytest.raises(DataError, match="examples must be an integer"):
            tlkit.data.mixture(two, examples=wrong)
    with pytest.raises(DataError, match="such as examples=101"):
        tlkit.data.mixture(two, weights=[100, 1], examples=20)
