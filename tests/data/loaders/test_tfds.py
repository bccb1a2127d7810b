"""With data sets that TensorFlow Datasets prepares here."""

import shutil
import socket

import numpy as np
import pytest

import tlkit
from tests.data.image_files import encoded
from tests.data.labeled import examples
from tlkit.errors import DataError

package = pytest.importorskip("tensorflow_datasets")


def _picture(split, number):
    return encoded("PNG", seed=len(split) * 1000 + number)


def _prepare(name, features, rows, data_dir, *, version="1.2.0", config="", **options):
    """Prepares a data set whose splits have the given rows."""

    def info(self):
        return package.core.DatasetInfo(
            builder=self, features=package.features.FeaturesDict(features), **options
        )

    def split_generators(self, manager):
        return {split: self._generate_examples(split) for split in rows}

    body = {
        "VERSION": package.core.Version(version),
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self, split: enumerate(rows[split]),
        "__module__": __name__,
    }
    if config:
        configs = [package.core.BuilderConfig(name=config, version=version)]
        body["BUILDER_CONFIGS"] = configs
    with package.core.registered.skip_registration():
        builder = type(name, (package.core.GeneratorBasedBuilder,), body)
        builder(data_dir=str(data_dir)).download_and_prepare()


COLORS = ("blue", "red", "white")
COUNTS = {"train": 30, "test": 6}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with prepared data sets."""
    data_dir = tmp_path_factory.mktemp("prepared")
    picture = {
        "picture": package.features.Image(shape=(None, None, 3)),
        "color": package.features.ClassLabel(names=COLORS),
        "number": np.int64,
    }
    rows = {
        split: [
            {"picture": _picture(split, n), "color": COLORS[n % 3], "number": n}
            for n in range(count)
        ]
        for split, count in COUNTS.items()
    }
    keys = ("picture", "color")
    _prepare("Flags", picture, rows, data_dir, supervised_keys=keys)
    text = {
        "sentence": package.features.Text(),
        "label": package.features.ClassLabel(names=["no", "yes"]),
    }
    rows = {
        "train": [{"sentence": f"Größe {n}", "label": n % 2} for n in range(12)],
        "validation": [{"sentence": "v", "label": 1}],
        "test": [{"sentence": "t", "label": -1}],
    }
    _prepare("Tiny", text, rows, data_dir, config="short")
    numbers = {
        "x": package.features.Tensor(shape=(2,), dtype=np.float64),
        "y": package.features.ClassLabel(num_classes=2),
    }
    rows = {"train": [{"x": [n, 0.5], "y": n % 2} for n in range(10)]}
    for version in ("9.0.0", "10.0.0"):
        _prepare(
            "Points",
            numbers,
            rows,
            data_dir,
            version=version,
            supervised_keys=("x", "y"),
            disable_shuffling=True,
        )
    return data_dir


def _read(name, data_dir, **options):
    return tlkit.data.tfds(name, data_dir=data_dir, **options)


def test_pictures_come_encoded_with_the_names_of_their_classes(data_dir):
    splits = _read("flags", data_dir)
    assert splits.kind == "image"
    assert splits.labels == COLORS
    assert splits.sizes == {"train": 27, "validation": 3, "test": 6}
    expected = {(_picture("train", n), n % 3) for n in range(30)}
    found = examples(splits.train) + examples(splits.validation)
    assert set(found) == expected and len(found) == 30
    assert set(examples(splits.test)) == {
        (_picture("test", n), n % 3) for n in range(6)
    }
    assert examples(splits.train) == found[:27]


def test_what_is_prepared_needs_no_network(data_dir, monkeypatch):
    def connect(*args):
        raise AssertionError(f"connects to {args}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert len(examples(_read("flags", data_dir).test)) == 6


def test_slices(data_dir):
    splits = _read(
        "flags", data_dir, train="train[:50%]+test[:2]", validation="train[80%:]"
    )
    assert splits.sizes == {"train": 17, "validation": 6, "test": 6}
    splits = _read("flags", data_dir, train="train[:10]", test="train[20:]")
    assert splits.sizes == {"train": 10, "test": 10}
    assert not set(examples(splits.train)) & set(examples(splits.test))
    splits = _read("flags", data_dir, validation=7, test=None)
    assert splits.sizes == {"train": 23, "validation": 7}
    splits = _read("flags", data_dir, validation=None)
    assert splits.sizes == {"train": 30, "test": 6}


def test_a_few_of_each_class(data_dir):
    splits = _read("flags", data_dir, examples_per_class=4, validation=None, seed=1)
    assert tlkit.data.class_counts(splits) == {"blue": 4, "red": 4, "white": 4}
    whole = set(examples(_read("flags", data_dir, validation=None).train))
    assert len(set(examples(splits.train)) & whole) == 12


def test_texts_and_a_test_split_without_labels(data_dir):
    splits = _read("tiny/short", data_dir, keys=("sentence", "label"))
    assert splits.kind == "text"
    assert splits.labels == ("no", "yes")
    expected = {(f"Größe {n}".encode(), n % 2) for n in range(12)}
    assert set(examples(splits.train)) == expected
    assert examples(splits.validation) == [(b"v", 1)]
    assert splits.test is None
    with pytest.raises(DataError, match=r"'test' have no labels \(-1\).*train \(12\)"):
        _read("tiny", data_dir, keys=("sentence", "label"), test="test")


def test_numbers_of_the_newest_version(data_dir):
    splits = _read("points", data_dir, validation=None)
    assert splits.kind == "array"
    assert splits.train.element_spec[0].dtype == "float32"
    assert examples(splits.train) == [([float(n), 0.5], n % 2) for n in range(10)]
    assert splits.labels == ("0", "1")
    older = _read("points:9.0.0", data_dir, validation=None)
    assert examples(older.train) == examples(splits.train)
    with pytest.raises(DataError, match="'points:8.0.0' is not prepared"):
        _read("points:8.0.0", data_dir)


def test_the_folder_itself(data_dir):
    splits = tlkit.data.tfds(data_dir / "flags" / "1.2.0", validation=None, test=None)
    assert splits.sizes == {"train": 30}


def test_what_is_prepared_is_said(data_dir, monkeypatch):
    message = (
        r"'nothing' is not prepared in .*: flags, points, tiny/short\. To download it"
    )
    with pytest.raises(DataError, match=message):
        _read("nothing", data_dir)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir / "flags"))
    with pytest.raises(DataError, match=r"Prepared there: \(nothing\).*download=True"):
        tlkit.data.tfds("flags")


def test_splits_and_features_that_are_not_there(data_dir):
    with pytest.raises(DataError, match=r"'dev'.*: train \(30\), test \(6\)"):
        _read("flags", data_dir, train="dev")
    with pytest.raises(DataError, match=r"cannot be read.*train \(30\)"):
        _read("flags", data_dir, train="train[:")
    with pytest.raises(DataError, match="cannot be read.*no data"):
        _read("flags", data_dir, train="train[:0]")
    with pytest.raises(DataError, match="no feature 'image'.*'picture' .Image."):
        _read("flags", data_dir, keys=("image", "color"))
    with pytest.raises(DataError, match="'number' of .*is not one class"):
        _read("flags", data_dir, keys=("picture", "number"))
    with pytest.raises(DataError, match="has no supervised keys, which name the"):
        _read("tiny", data_dir)


def test_a_validation_split_that_cannot_be_cut_off(data_dir):
    with pytest.raises(DataError, match="its examples are not shuffled"):
        _read("points", data_dir)
    with pytest.raises(
        DataError, match=r"train='train\[:9\]' is not one of its splits"
    ):
        _read("flags", data_dir, train="train[:9]", validation=0.5)
    with pytest.raises(DataError, match="takes all of the 30 examples"):
        _read("flags", data_dir, validation=30)


def test_a_missing_file_is_said(data_dir, tmp_path):
    shutil.copytree(data_dir / "flags", tmp_path / "flags")
    (shard,) = tmp_path.glob("flags/*/flags-train.tfrecord*")
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        _read("flags", tmp_path)
