from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.image_files import write_classes
from tests.data.labeled import examples, numbered, numbers, streaming
from tlkit.data.examples.random_access import examples_of, pick
from tlkit.errors import DataError


def _classes(dataset):
    return Counter(label for _, label in examples(dataset))


# === Counts and weights ===


def test_counts_are_by_name_in_the_order_of_the_labels():
    splits = numbered([3, 0, 5], labels=("x", "none", "b"))
    assert tlkit.data.class_counts(splits) == {"x": 3, "none": 0, "b": 5}
    assert list(tlkit.data.class_counts(splits)) == ["x", "none", "b"]


def test_counts_of_another_split():
    x, y = np.zeros((40, 2)), np.repeat(["a", "b"], [30, 10])
    splits = tlkit.data.arrays(x, y, validation=0.2, test=0)
    assert tlkit.data.class_counts(splits, split="validation") == {"a": 6, "b": 2}
    with pytest.raises(DataError, match="no split 'test'.*'train', 'validation'"):
        tlkit.data.class_counts(splits, split="test")


def test_balanced_weights_are_those_of_scikit_learn():
    # sklearn.utils.class_weight.compute_class_weight("balanced", …) on [0]*6+[1]*3+[2]
    weights = tlkit.data.class_weights(numbered([6, 3, 1]))
    assert weights == pytest.approx({0: 10 / 18, 1: 10 / 9, 2: 10 / 3})
    assert sum(n * weights[i] for i, n in enumerate([6, 3, 1])) == pytest.approx(10)


def test_weights_by_effective_numbers():
    weights = tlkit.data.class_weights(numbered([60, 30, 1]), beta=0.9)
    effective = [(1 - 0.9**n) / (1 - 0.9) for n in (60, 30, 1)]
    expected = np.array([1 / n for n in effective])
    expected *= 3 / expected.sum()
    assert list(weights.values()) == pytest.approx(expected.tolist())
    assert sum(weights.values()) == pytest.approx(3)


def test_weights_go_from_none_to_the_inverse_counts():
    splits = numbered([60, 30, 10])
    assert tlkit.data.class_weights(splits, beta=0) == pytest.approx({0: 1, 1: 1, 2: 1})
    nearly = tlkit.data.class_weights(splits, beta=1 - 1e-12)
    assert nearly[2] / nearly[0] == pytest.approx(6, rel=1e-6)
    assert nearly[1] / nearly[0] == pytest.approx(2, rel=1e-6)


def test_weights_leave_out_classes_without_examples():
    assert tlkit.data.class_weights(numbered([2, 0, 2])) == {0: 1.0, 2: 1.0}


@pytest.mark.parametrize("beta", [1, -0.1, float("nan"), "0.9"])
def test_beta_is_checked(beta):
    with pytest.raises(DataError, match=r"beta must be a number in \[0, 1\)"):
        tlkit.data.class_weights(numbered([2, 2]), beta=beta)


def test_a_label_without_a_name_is_an_error():
    splits = numbered([2, 2, 2], labels=("a", "b"))
    for function in (
        tlkit.data.class_counts,
        tlkit.data.balanced,
        lambda splits: tlkit.data.take_per_class(splits, 1),
    ):
        with pytest.raises(DataError, match="Example 4 of the train split has .* 2;"):
            function(splits)


# === A few of each class ===


@pytest.mark.parametrize("way", [lambda splits: splits, streaming])
def test_a_few_of_each_class(way):
    splits = way(numbered([50, 3, 1]))
    few = tlkit.data.take_per_class(splits, 4, seed=1)
    assert tlkit.data.class_counts(few) == {"a": 4, "b": 3, "c": 1}
    assert few.sizes == {"train": 8}
    kept = numbers(few.train)
    assert len(set(kept)) == 8
    assert set(range(50, 54)) < set(kept)
    assert kept == numbers(few.train)
    assert [label for _, label in examples(few.train)] != sorted([0] * 4 + [1] * 3)


def test_the_seed_decides_which():
    splits = numbered([500, 500])
    kept = [
        numbers(tlkit.data.take_per_class(splits, 10, seed=seed).train)
        for seed in (0, 0, 1)
    ]
    assert kept[0] == kept[1]
    assert len(set(kept[0]) & set(kept[2])) < 5


def test_more_examples_are_the_fewer_ones_and_others():
    splits = numbered([50, 50])
    five, nine = (
        set(numbers(tlkit.data.take_per_class(splits, n, seed=3).train)) for n in (5, 9)
    )
    assert five < nine


def test_it_is_the_same_whether_read_by_place_or_streamed():
    splits = numbered([50, 20])
    folded = tlkit.data.take_per_class(splits, 5)
    assert examples(folded.train) == examples(
        tlkit.data.take_per_class(streaming(splits), 5).train
    )


def test_the_other_splits_stay(tmp_path):
    write_classes(tmp_path, {"a": 20, "b": 10})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    few = tlkit.data.take_per_class(splits, 2)
    assert few.sizes == splits.sizes | {"train": 4}
    assert few.validation is splits.validation
    whole = set(examples(splits.train))
    assert set(examples(few.train)) < whole


def test_a_thousand_classes_of_one():
    labels = tuple(map(str, range(1000)))
    splits = numbered([1] * 1000, labels=labels)
    few = tlkit.data.take_per_class(splits, 5)
    assert sorted(numbers(few.train)) == list(range(1000))
    even = tlkit.data.balanced(splits)
    assert sorted(numbers(even.train)) == list(range(1000))
    assert set(tlkit.data.class_weights(splits).values()) == {1.0}


@pytest.mark.parametrize("examples", [0, 2.5, True])
def test_the_number_is_checked(examples):
    with pytest.raises(DataError, match="examples must be an integer of 1 or more"):
        tlkit.data.take_per_class(numbered([2, 2]), examples)
    with pytest.raises(DataError, match="examples_per_class must be an integer of 1"):
        tlkit.data.balanced(numbered([2, 2]), examples_per_class=examples)


# === Balanced ===


@pytest.mark.parametrize("way", [lambda splits: splits, streaming])
def test_classes_come_equally_often(way):
    even = tlkit.data.balanced(way(numbered([40, 7, 1])))
    assert tlkit.data.class_counts(even) == {"a": 40, "b": 40, "c": 40}
    assert int(even.train.cardinality()) == 120
    assert _classes(even.train) == {0: 40, 1: 40, 2: 40}
    times = Counter(numbers(even.train))
    assert {times[n] for n in range(40)} == {1}
    # 40 = 5 * 7 + 5: five of the seven come six times
    assert sorted(times[n] for n in range(40, 47)) == [5, 5, 6, 6, 6, 6, 6]
    assert times[47] == 40


def test_the_order_is_mixed_and_the_same_again():
    splits = numbered([400, 20])
    even, again, other = (tlkit.data.balanced(splits, seed=s).train for s in (0, 0, 1))
    labels = [label for _, label in examples(even)]
    assert 150 < sum(labels[:400]) < 250
    assert examples(even) == examples(again) != examples(other)


def test_fewer_examples_of_each_class():
    even = tlkit.data.balanced(numbered([40, 7, 1]), examples_per_class=10)
    assert tlkit.data.class_counts(even) == {"a": 10, "b": 10, "c": 10}
    times = Counter(numbers(even.train))
    assert [times[n] for n in range(40)].count(1) == 10


def test_classes_without_examples_are_passed_over():
    even = tlkit.data.balanced(numbered([4, 0, 1]))
    assert tlkit.data.class_counts(even) == {"a": 4, "b": 0, "c": 4}


def test_shards_are_balanced_by_place(tmp_path):
    splits = numbered([30, 5], kind="text")
    tlkit.data.write_shards(splits, tmp_path / "shards", shard_size=500, verbose=0)
    even = tlkit.data.balanced(tlkit.data.tfrecords(tmp_path / "shards"))
    assert examples(even.train) == examples(tlkit.data.balanced(splits).train)
    assert _classes(even.train) == {0: 30, 1: 30}


def test_what_is_picked_can_be_picked_from():
    splits = tlkit.data.take_per_class(tlkit.data.balanced(numbered([30, 5])), 3)
    assert tlkit.data.class_counts(splits) == {"a": 3, "b": 3}
    places = np.array([4, 0, 4])
    expected = numbers(splits.train)
    assert numbers(examples_of(splits.train).read(places)) == [
        expected[place] for place in places
    ]


def test_a_dataset_whose_length_changes_is_noticed():
    lengths = iter([10, 4])

    def generate():
        for number in range(next(lengths)):
            yield str(number), number % 2

    spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32))
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    splits = tlkit.data.Splits(dataset, None, None, ("a", "b"), "text")
    with pytest.raises(DataError, match="has 4 of the 10 examples"):
        tlkit.data.balanced(splits)


def test_too_much_to_hold_says_to_write_shards(monkeypatch):
    monkeypatch.setattr("tlkit.data.examples.random_access._MEMORY_LIMIT", 10)
    with pytest.raises(DataError, match=r"Type: splits = tlkit.data.tfrecords\("):
        tlkit.data.balanced(streaming(numbered([30, 5])))


def test_pick_of_nothing_is_empty():
    for way in (lambda splits: splits, streaming):
        splits = way(numbered([2, 2]))
        assert examples(pick(splits.train, np.zeros(0, np.int64))) == []
