import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.image_files import encoded, flipped
from tests.data.labeled import examples
from tlkit.data.examples.random_access import examples_of
from tlkit.errors import DataError

NAMES = ("ant", "bee", "cow")


def _feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    value = value if isinstance(value, bytes) else value.encode()
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _write(path, rows, raw="image/encoded", label="image/class/label", options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for contents, value in rows:
            features = {raw: _feature(contents), label: _feature(value)}
            features["image/filename"] = _feature("x.jpg")
            features = tf.train.Features(feature=features)
            writer.write(tf.train.Example(features=features).SerializeToString())


ROWS = [(encoded(seed=n), 1 + n % 3) for n in range(9)]


@pytest.fixture
def folder(tmp_path):
    """Nine pictures in two files, with classes that count from 1."""
    _write(tmp_path / "train-00000-of-00002", ROWS[:5])
    _write(tmp_path / "train-00001-of-00002", ROWS[5:])
    _write(tmp_path / "validation-00000-of-00001", ROWS[:2])
    return tmp_path


def _read(train, **options):
    options = {
        "raw": "image/encoded",
        "label": "image/class/label",
        "labels": NAMES,
        "first_label": 1,
        "verbose": 0,
    } | options
    return tlkit.data.tfrecord_files(train, **options)


def test_pictures_of_others(folder):
    splits = _read(
        folder / "train-*", validation=[folder / "validation-00000-of-00001"]
    )
    assert examples(splits.train) == [(raw, label - 1) for raw, label in ROWS]
    assert examples(splits.validation) == [(raw, label - 1) for raw, label in ROWS[:2]]
    assert splits.test is None
    assert splits.sizes == {"train": 9, "validation": 2}
    assert (splits.labels, splits.kind) == (NAMES, "image")
    assert tlkit.data.class_counts(splits) == {"ant": 3, "bee": 3, "cow": 3}


def test_texts_with_names_of_classes(tmp_path):
    rows = [("good", "cow"), ("schön", "ant"), ("", "cow")]
    _write(tmp_path / "a.tfrecord", rows, raw="text", label="class")
    splits = _read(tmp_path / "a.tfrecord", raw="text", label="class", kind="text")
    expected = [(b"good", 2), ("schön".encode(), 0), (b"", 2)]
    assert examples(splits.train) == expected


def test_they_can_be_sampled_and_written_again(folder):
    splits = _read(folder / "train-*")
    few = tlkit.data.take_per_class(splits, 1)
    assert set(examples(few.train)) < {(raw, label - 1) for raw, label in ROWS}
    assert few.sizes == {"train": 3}
    tlkit.data.write_shards(splits, folder / "shards", verbose=0)
    back = tlkit.data.tfrecords(folder / "shards")
    assert examples(back.train) == examples(splits.train)


def test_files_without_records_are_passed_over(folder):
    _write(folder / "train-00000-of-00002", [])
    with pytest.raises(DataError, match="00000-of-00002 has no records"):
        _read(folder / "train-*")
    _write(folder / "train-00000-of-00002", ROWS[:1])
    _write(folder / "train-00001-of-00002", [])
    splits = _read(folder / "train-*")
    assert splits.sizes == {"train": 1}
    assert sorted(label for _, label in examples(splits.train)) == [0]


def test_what_is_not_there_is_said(folder):
    with pytest.raises(DataError, match=r"No file matches train='nothing-\*'"):
        _read("nothing-*")
    with pytest.raises(DataError, match="test split are missing: .*nothing is no file"):
        _read(folder / "train-*", test=[folder / "nothing"])
    with pytest.raises(
        DataError, match="no feature 'image/label'. They have: 'image/class"
    ):
        _read(folder / "train-*", label="image/label")
    with pytest.raises(DataError, match='kind must be "image" or "text"'):
        _read(folder / "train-*", kind="array")


def test_labels_out_of_range_are_named(folder):
    with pytest.raises(
        DataError, match=r"Example 2 of .*train-00000.* 3 labels: it is 3, and .* is 0"
    ):
        _read(folder / "train-*", first_label=0)
    with pytest.raises(DataError, match=r"Example 0 of .* it is 1, and .* class is 2"):
        _read(folder / "train-*", first_label=2)
    _write(folder / "named", [("x", "ant"), ("y", "elk")])
    with pytest.raises(DataError, match="Example 1 of .*named.* labels does not have"):
        _read(folder / "named")


def test_damaged_and_compressed_files_are_named(folder):
    path = folder / "train-00001-of-00002"
    contents = path.read_bytes()
    path.write_bytes(flipped(contents, len(contents) // 2))
    with pytest.raises(DataError, match="train-00001-of-00002 cannot be read beyond"):
        _read(folder / "train-*")
    path.write_bytes(contents[:-7])
    with pytest.raises(DataError, match="train-00001-of-00002 cannot be read beyond"):
        _read(folder / "train-*")
    _write(folder / "train-00000-of-00002", ROWS, options="GZIP")
    with pytest.raises(DataError, match="train-00000-of-00002 is no TFRecord file"):
        _read(folder / "train-*")


def test_records_that_differ_are_named(folder):
    _write(folder / "train-00001-of-00002", [(ROWS[0][0], 1), ("x", "ant")])
    with pytest.raises(DataError, match="train-00001-of-00002 cannot be read beyond"):
        _read(folder / "train-*")


def test_it_has_random_access(folder):
    read = examples_of(_read(folder / "train-*").train).read
    places = np.array([8, 2, 8])
    assert examples(read(places)) == [(ROWS[n][0], ROWS[n][1] - 1) for n in places]
