import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tlkit.errors import DataError

_X = np.arange(20 * 2 * 3, dtype=np.uint8).reshape(20, 2, 3)
_Y = np.arange(20) % 2


def _pairs(dataset):
    return [(raw.tolist(), int(label)) for raw, label in dataset.as_numpy_iterator()]


def test_numbers_come_back_with_their_labels():
    splits = tlkit.data.arrays(_X, _Y)
    assert splits.kind == "array"
    assert splits.labels == ("0", "1")
    assert splits.sizes == {"train": 16, "validation": 2, "test": 2}
    assert splits.train.element_spec == (
        tf.TensorSpec([2, 3], tf.uint8),
        tf.TensorSpec([], tf.int32),
    )
    found = [pair for name in splits.sizes for pair in _pairs(getattr(splits, name))]
    expected = [(raw.tolist(), int(label)) for raw, label in zip(_X, _Y, strict=True)]
    assert sorted(found) == expected
    doubled = splits.train.map(lambda raw, label: (raw * 2, label))
    assert doubled.element_spec[0].shape == (2, 3)


def test_given_splits_keep_their_order():
    given = (_X[:3], ["1", "0", "1"])
    splits = tlkit.data.arrays(_X, [str(n) for n in _Y], test_data=given)
    assert splits.sizes == {"train": 18, "validation": 2, "test": 3}
    assert _pairs(splits.test) == [
        (_X[0].tolist(), 1),
        (_X[1].tolist(), 0),
        (_X[2].tolist(), 1),
    ]
    splits = tlkit.data.arrays(_X, _Y, validation_data=(_X[:1], [1]), test=0)
    assert splits.sizes == {"train": 20, "validation": 1}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("uint8", "uint8"),
        ("int64", "int64"),
        ("float16", "float16"),
        ("float32", "float32"),
        ("float64", "float32"),
        ("bool", "float32"),
    ],
)
def test_dtypes(given, kept):
    splits = tlkit.data.arrays(_X.astype(given), _Y)
    assert splits.train.element_spec[0].dtype == kept


@pytest.mark.parametrize(
    "y",
    [
        _Y.astype("uint8"),
        _Y.astype("float32"),
        _Y.astype(bool),
        _Y[:, None],
        _Y.tolist(),
        np.where(_Y, "yes", "no"),
        np.where(_Y, "yes", "no").astype(object),
        np.where(_Y, "yes ", "no").tolist(),
    ],
)
def test_forms_of_classes(y):
    splits = tlkit.data.arrays(_X, y, labels=("no", "yes"), validation=0, test=0)
    assert splits.labels == ("no", "yes")
    for raw, label in splits.train.as_numpy_iterator():
        assert label == _Y[raw[0, 0] // 6]


def test_the_order_of_labels_is_kept():
    names = np.where(_Y, "yes", "no")
    splits = tlkit.data.arrays(_X, names, labels=["yes", "no"], validation=0, test=0)
    assert splits.labels == ("yes", "no")
    for raw, label in splits.train.as_numpy_iterator():
        assert label == 1 - _Y[raw[0, 0] // 6]
    assert tlkit.data.arrays(_X, names).labels == ("no", "yes")


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda x: np.array(x, object)])
def test_texts(form):
    texts = [f"text {n}" for n in range(20)]
    splits = tlkit.data.arrays(form(texts), _Y, validation=0, test=0)
    assert splits.kind == "text"
    found = sorted(
        (raw.decode(), int(n)) for raw, n in splits.train.as_numpy_iterator()
    )
    assert found == sorted(zip(texts, _Y.tolist(), strict=True))


def test_empty_texts():
    texts = ["a", "", "b", " \n"]
    with pytest.warns(tlkit.data.SkippedWarning, match="x, row 1: the text is empty"):
        splits = tlkit.data.arrays(texts, [0, 0, 1, 1], validation=0, test=0)
    assert [(entry.path, entry.row) for entry in splits.skipped] == [("x", 1), ("x", 3)]
    assert splits.sizes == {"train": 2}
    with pytest.raises(DataError, match=r"x, row 1: the text is empty.*on_empty"):
        tlkit.data.arrays(texts, [0, 0, 1, 1], on_empty="raise")
    with pytest.raises(DataError, match="on_empty must be"):
        tlkit.data.arrays(texts, [0, 0, 1, 1], on_empty="keep")


def _with_nan():
    x = _X.astype("float32")
    x[7, 1, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (_X, _Y[:-1], {}, "x has 20 examples but 19 labels"),
        (_X, np.eye(2)[_Y], {}, r"got shape \[20, 2\]. Type: y.argmax\(axis=1\)"),
        (_X[:0], _Y[:0], {}, "x has no examples"),
        (np.arange(20.0), _Y, {}, r"got float64 \[20\]"),
        (_with_nan(), _Y, {}, "Example 7 of x has numbers that are not finite"),
        ([[1, 2], [3]], [0, 1], {}, "examples of x differ in shape"),
        ([b"a", b"b"], [0, 1], {}, r"got bytes. Type: text.decode\(\)"),
        (["a", 3], [0, 1], {}, "Example 1 of x must be a text, as str; got int"),
        (["a", "\ud800"], [0, 1], {}, "Example 1 of x is not valid Unicode"),
        (_X, _Y * 0, {}, "one class, '0'"),
        (_X, _Y * 2, {}, r"1 of 3 classes in x have no examples.*'1'"),
        (_X, _Y * 50, {}, r"indices 0, 1, … .*got 50 among 20"),
        (_X, _Y - 1, {}, r"indices from 0 up; y of x has .*-1.* for example 0"),
        (_X, _Y / 2, {}, r"y of x has .*0\.5.* for example 1"),
        (_X, [np.nan, *_Y[1:]], {}, r"y of x has .*nan.* for example 0"),
        (_X, [None, *_Y[1:]], {}, "y of x has None for example 0"),
        (_X, _Y, {"labels": ["a"]}, r"class 1 for example 1; with 1 labels"),
        (_X, _Y, {"labels": ["a", "b", "c"]}, r"no examples to train on: 'c'"),
        (_X, _Y, {"labels": ["a", "a"]}, "labels must differ; got twice: a"),
        (_X, _Y, {"labels": "ab"}, "labels must be a list of names"),
        (_X, _Y, {"labels": [0, 1]}, "labels must be a list of names"),
        (_X, ["a", "b"] * 10, {"labels": ["a", "c"]}, r"not in labels: 'b'"),
        (_X, _Y, {"test_data": _X}, r"test_data must be a pair \(x, y\)"),
        (_X, _Y, {"test_data": (_X, _Y + 1)}, r"test split in test_data .*'2' \(10 ex"),
        (_X, _Y, {"test_data": (_X[:, :1], _Y)}, r"uint8 \[20, 2, 3\]; got uint8 \[20"),
        (
            _X,
            _Y,
            {"validation_data": (["a"], [0])},
            "validation_data must hold numbers",
        ),
        (["a", "b"], [0, 1], {"test_data": (_X, _Y)}, "test_data must hold texts"),
        ([("a", "b"), "c"], [0, 1], {}, "Example 1 of x must be a pair of texts"),
        ([("a", "b"), ("c",)], [0, 1], {}, "Example 1 of x must be a pair of texts"),
        ([("a", "b"), ("c", 1)], [0, 1], {}, "text of example 1 of x must be .* int"),
        (
            [("a", "b"), ("c", "d")],
            [0, 1],
            {"test_data": (["a"], [0])},
            "test_data must hold pairs of texts",
        ),
    ],
)
def test_what_does_not_fit(x, y, options, message):
    with pytest.raises(DataError, match=message):
        tlkit.data.arrays(x, y, **options)


@pytest.mark.parametrize("form", [list, np.array, lambda x: np.array(x, object)])
def test_pairs_of_texts(form):
    pairs = [("a man", "a person"), ("a dog", ""), ("☃", "snow")]
    splits = tlkit.data.arrays(form(pairs), [1, 0, 1], validation=0, test=0)
    assert splits.kind == "text"
    found = [
        (*(text.decode() for text in raw), int(label))
        for raw, label in splits.train.as_numpy_iterator()
    ]
    expected = [(*pair, y) for pair, y in zip(pairs, [1, 0, 1], strict=True)]
    assert sorted(found) == sorted(expected)
    assert splits.train.element_spec[0].shape == [2]


def test_pairs_without_any_text_are_left_out():
    with pytest.warns(tlkit.data.SkippedWarning, match="x, row 1: the text is empty"):
        splits = tlkit.data.arrays(
            [("a", "b"), (" ", ""), ("c", "")], [1, 1, 0], validation=0, test=0
        )
    assert splits.sizes == {"train": 2}
