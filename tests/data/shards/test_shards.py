import json
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests import forked
from tests.data.image_files import flipped, write_classes
from tests.data.labeled import examples, numbered, numbers
from tests.own_disk import through_own_disk
from tlkit.data.examples.random_access import examples_of
from tlkit.errors import DataError

PICTURES = {"cat": 14, "dog": 11, "fox": 6}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_classes(folder, PICTURES)
    return tlkit.data.image_folder(folder, verbose=0)


@pytest.fixture
def shards(pictures, tmp_path):
    """The folder of the shards of the pictures, several for the training split."""
    return tlkit.data.write_shards(
        pictures, tmp_path / "shards", shard_size=2000, verbose=0
    )


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


# === Round trips ===


def test_pictures_come_back_byte_by_byte_in_their_order(pictures, shards):
    splits = tlkit.data.tfrecords(shards)
    assert splits.labels == ("cat", "dog", "fox")
    assert splits.kind == "image"
    assert splits.sizes == pictures.sizes
    for name in pictures.sizes:
        written = examples(getattr(pictures, name))
        assert examples(getattr(splits, name)) == written
        assert written[0][0].startswith(b"\xff\xd8")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16"])
def test_arrays_come_back_with_their_dtype_and_shape(tmp_path, dtype):
    x = np.random.default_rng(0).normal(0, 50, (30, 5, 4, 1)).astype(dtype)
    splits = tlkit.data.arrays(x, np.arange(30) % 3, seed=1)
    folder = tlkit.data.write_shards(splits, tmp_path / "shards", verbose=0)
    back = tlkit.data.tfrecords(folder)
    assert back.train.element_spec == splits.train.element_spec
    assert back.kind == "array"
    for name in ("train", "validation", "test"):
        assert examples(getattr(back, name)) == examples(getattr(splits, name))


def test_texts_and_pairs_of_texts_come_back(tmp_path):
    texts = ["Größe", "", "x" * 70_000, "a\nb"]
    pairs = [["one", "two"], ["", "drei"], ["4", "5"], ["six", "süß"]]
    for number, raws in enumerate((texts, pairs)):
        train = tf.data.Dataset.from_tensor_slices((raws, [0, 1, 1, 0]))
        splits = tlkit.data.Splits(train, None, None, ("no", "yes"), "text")
        folder = tmp_path / str(number)
        tlkit.data.write_shards(splits, folder, verbose=0)
        back = tlkit.data.tfrecords(folder)
        assert examples(back.train) == examples(train)
        assert back.validation is back.test is None
        assert back.train.element_spec[0].shape == train.element_spec[0].shape


def test_arrays_of_different_shapes_come_back(tmp_path):
    arrays = [np.full((n, 2), n, np.float32) for n in (1, 3, 2)]
    spec = (tf.TensorSpec([None, 2]), tf.TensorSpec([], tf.int32))
    train = tf.data.Dataset.from_generator(
        lambda: zip(arrays, [0, 1, 0], strict=True), output_signature=spec
    )
    splits = tlkit.data.Splits(train, None, None, ("a", "b"), "array")
    tlkit.data.write_shards(splits, tmp_path / "shards", verbose=0)
    back = tlkit.data.tfrecords(tmp_path / "shards")
    assert examples(back.train) == examples(train)
    assert back.train.element_spec[0].shape.as_list() == [None, 2]
    assert back.sizes == {"train": 3}


def test_shards_are_of_the_size_and_named_by_their_number(shards, pictures):
    index = json.loads((shards / "shards.json").read_text())
    train = index["splits"]["train"]
    count = len(train["shards"])
    assert count > 3
    assert [shard["file"] for shard in train["shards"]] == [
        f"train-{number:05}-of-{count:05}.tfrecord" for number in range(count)
    ]
    assert sum(shard["examples"] for shard in train["shards"]) == train["examples"]
    sizes = [(shards / shard["file"]).stat().st_size for shard in train["shards"]]
    assert sizes == [shard["bytes"] for shard in train["shards"]]
    assert max(sizes) <= 2000
    # All but the last are full: the next example would not have fit.
    longest = max(len(raw) for raw, _ in examples(pictures.train)) + 100
    assert min(sizes[:-1]) > 2000 - longest
    assert _names(shards.parent) == ["shards"]


def test_an_example_larger_than_a_shard_has_one_of_its_own(tmp_path):
    splits = numbered([2, 2], kind="text")
    tlkit.data.write_shards(splits, tmp_path / "shards", shard_size=1, verbose=0)
    back = tlkit.data.tfrecords(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("train-*.tfrecord"))) == 4
    assert examples(back.train) == [(b"0", 0), (b"1", 0), (b"2", 1), (b"3", 1)]


def test_others_can_read_the_records(shards, pictures):
    path = sorted(shards.glob("train-*.tfrecord"))[0]
    record = next(iter(tf.data.TFRecordDataset(str(path)))).numpy()
    features = tf.train.Example.FromString(record).features.feature
    raw, label = examples(pictures.train)[0]
    assert features["raw"].bytes_list.value[0] == raw
    assert features["label"].int64_list.value[0] == label


def test_a_thousand_classes_with_one_example_each(tmp_path):
    labels = tuple(f"class {number}" for number in range(1000))
    splits = numbered([1] * 1000, labels=labels)
    tlkit.data.write_shards(splits, tmp_path / "shards", shard_size=9000, verbose=0)
    back = tlkit.data.tfrecords(tmp_path / "shards")
    assert back.labels == labels
    assert numbers(back.train) == list(range(1000))


# === Random access ===


@pytest.fixture
def sharded(tmp_path):
    """200 numbered examples in shards of different lengths."""
    splits = numbered([120, 80], kind="text")
    folder = tmp_path / "numbered"
    tlkit.data.write_shards(splits, folder, shard_size=1000, verbose=0)
    assert len(list(folder.glob("*.tfrecord"))) > 5
    return tlkit.data.tfrecords(folder).train


def test_examples_are_read_by_their_indices(sharded):
    places = np.array([199, 0, 57, 57, 120])
    read = examples_of(sharded).read(places)
    assert examples(read) == [(str(n).encode(), int(n >= 120)) for n in places]
    assert int(read.cardinality()) == 5
    assert examples_of(sharded).labels.tolist() == [0] * 120 + [1] * 80


# === What is wrong with the files ===


def _shard(folder, number=1):
    return sorted(folder.glob("train-*.tfrecord"))[number]


def test_a_missing_shard_is_named(shards):
    path = _shard(shards)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name} is missing"):
        tlkit.data.tfrecords(shards)


def test_a_truncated_shard_is_named(shards):
    path = _shard(shards)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{path.name} has [\d,]+ bytes instead of"):
        tlkit.data.tfrecords(shards)


def test_a_shard_of_another_set_is_named(shards):
    (shards / "train-00000-of-00001.tfrecord").write_bytes(b"")
    with pytest.raises(DataError, match="00000-of-00001.tfrecord does not belong"):
        tlkit.data.tfrecords(shards)


def test_a_flipped_bit_is_named_by_verify_and_stops_a_reader(shards):
    path = _shard(shards)
    path.write_bytes(flipped(path.read_bytes(), 700))
    splits = tlkit.data.tfrecords(shards)
    with pytest.raises(tf.errors.DataLossError):
        list(splits.train)
    with pytest.raises(
        DataError, match=rf"{path.name} does not match its checksum"
    ) as caught:
        tlkit.data.tfrecords(shards, verify=True, verbose=0)
    assert str(caught.value).count(".tfrecord") == 1


def test_random_access_compares_checksums_too(shards):
    path = _shard(shards, 0)
    path.write_bytes(flipped(path.read_bytes(), 100))
    splits = tlkit.data.tfrecords(shards)
    with pytest.raises(tf.errors.DataLossError):
        list(examples_of(splits.train).read(np.array([0])))
    assert len(list(examples_of(splits.train).read(np.array([3])))) == 1


def test_damaged_places_are_noticed(shards):
    path = shards / "train-rows.npy"
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 16))
    with pytest.raises(DataError, match=r"train-rows.npy does not match its checksum"):
        tlkit.data.tfrecords(shards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 of the format"),
        ({"format": "other"}, "was not written by tlkit.data.write_shards"),
        ({"labels": ["dog", "cat", "fox"]}, "shards.json does not match its checksum"),
    ],
)
def test_an_index_that_is_not_right(shards, change, message):
    path = shards / "shards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        tlkit.data.tfrecords(shards)


def test_a_folder_without_an_index_says_what_it_has(shards):
    path = shards / "shards.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"shards.json cannot be read"):
        tlkit.data.tfrecords(shards)
    path.unlink()
    with pytest.raises(DataError, match=r"it has: test-.*tfrecord_files"):
        tlkit.data.tfrecords(shards)
    with pytest.raises(DataError, match="There is no folder"):
        tlkit.data.tfrecords(shards / "nowhere")


# === Writing that does not come to its end ===


def test_nothing_is_written_over(shards, pictures, tmp_path):
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    with pytest.raises(DataError, match=r"holds shards already.*tfrecords\("):
        tlkit.data.write_shards(pictures, shards, verbose=0)
    assert {path.name: path.read_bytes() for path in shards.iterdir()} == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        tlkit.data.write_shards(pictures, other, verbose=0)
    with pytest.raises(DataError, match="is a file"):
        tlkit.data.write_shards(pictures, other / "mine.txt", verbose=0)
    assert _names(other) == ["mine.txt"]


def test_an_empty_folder_is_taken(pictures, tmp_path):
    (tmp_path / "shards").mkdir()
    folder = tlkit.data.write_shards(pictures, tmp_path / "shards", verbose=0)
    assert folder == tmp_path / "shards"
    assert tlkit.data.tfrecords(folder).sizes == pictures.sizes


def _run(script, *arguments, through=()):
    script = textwrap.dedent(script)
    run = subprocess.run if through else forked.run
    return run(
        [*through, sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(tlkit.__file__).parent.parent,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )


def test_a_killed_write_leaves_nothing_that_can_be_read(tmp_path):
    killed = """
        import os, sys, tensorflow as tf, tlkit
        def stop(number):
            if number == 700:
                os._exit(9)
            return number
        def raw(number):
            return tf.as_string(tf.numpy_function(stop, [number], tf.int64))
        train = tf.data.Dataset.range(1000).map(lambda n: (raw(n), n % 2))
        train = train.map(lambda raw, label: (tf.reshape(raw, []), label))
        splits = tlkit.data.Splits(train, None, None, ("a", "b"), "text")
        tlkit.data.write_shards(splits, sys.argv[1], shard_size=5000, verbose=0)
    """
    final = tmp_path / "shards"
    assert _run(killed, final).returncode == 9
    assert not final.exists()
    (left,) = tmp_path.glob(".tlkit-staging-*/shards")
    assert len(list(left.iterdir())) > 2  # it was in the middle of it
    with pytest.raises(DataError, match="has no shards.json"):
        tlkit.data.tfrecords(left)
    splits = numbered([5, 5])
    tlkit.data.write_shards(splits, final, verbose=0)
    assert _names(tmp_path) == ["shards"]
    assert examples(tlkit.data.tfrecords(final).train) == examples(splits.train)


def test_a_writer_at_work_is_left_alone(tmp_path):
    from tlkit.files import atomic_folder

    with atomic_folder(tmp_path / "shards") as first:
        (first / "part").write_text("x")
        tlkit.data.write_shards(numbered([2, 2]), tmp_path / "others", verbose=0)
        with atomic_folder(tmp_path / "shards") as second:
            (second / "part").write_text("y")
        (tmp_path / "shards" / "part").unlink()
    assert (tmp_path / "shards" / "part").read_text() == "x"


FILLED = """
    import resource, sys, tensorflow as tf, tlkit
    if sys.argv[2:]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    train = tf.data.Dataset.range(1000).map(
        lambda n: (tf.random.stateless_uniform([1000], [n, 0]), n % 2))
    splits = tlkit.data.Splits(train, None, None, ("a", "b"), "array")
    try:
        tlkit.data.write_shards(splits, sys.argv[1], shard_size=400_000, verbose=0)
    except tlkit.errors.DataError as error:
        print(error)
"""


def test_a_limit_of_file_sizes_leaves_nothing(tmp_path):
    done = _run(FILLED, tmp_path / "shards", "limited")
    assert done.returncode == 0, done.stderr
    assert "shards could not be written: " in done.stdout
    assert "Make room" in done.stdout
    assert _names(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    """On a file system of its own, where one can be mounted."""
    disk = tmp_path / "disk"
    through = through_own_disk(disk, then=f"ls -A {disk}")
    done = _run(FILLED, disk / "shards", through=through)
    assert done.returncode == 0, done.stderr
    message, *there = done.stdout.splitlines()
    assert "shards could not be written: " in message
    assert "No space left on device" in message
    assert there == []


def test_an_example_that_cannot_be_read_stops_the_writing(tmp_path):
    paths = write_classes(tmp_path / "pictures", {"a": 3, "b": 3})
    splits = tlkit.data.image_folder(
        tmp_path / "pictures", validation=0, test=0, verbose=0
    )
    pathlib.Path(list(paths)[4]).unlink()
    with pytest.raises(DataError, match=r"After example 0 of the train .*001.jpg"):
        tlkit.data.write_shards(splits, tmp_path / "shards", verbose=0)
    assert _names(tmp_path) == ["pictures"]


def test_labels_out_of_range_and_no_examples(tmp_path):
    train = tf.data.Dataset.from_tensor_slices((["x", "y"], [0, 2]))
    splits = tlkit.data.Splits(train, None, None, ("a", "b"), "text")
    with pytest.raises(DataError, match="has the label 2; with 2 labels"):
        tlkit.data.write_shards(splits, tmp_path / "shards", verbose=0)
    splits = tlkit.data.Splits(train.take(0), None, None, ("a", "b"), "text")
    with pytest.raises(DataError, match="train split has no examples"):
        tlkit.data.write_shards(splits, tmp_path / "shards", verbose=0)
    batched = tlkit.data.Splits(train.batch(2), None, None, ("a", "b"), "text")
    with pytest.raises(DataError, match="must be pairs"):
        tlkit.data.write_shards(batched, tmp_path / "shards", verbose=0)
    with pytest.raises(DataError, match="must be 1 byte or more; got 0"):
        tlkit.data.write_shards(splits, tmp_path / "shards", shard_size=0)
    assert _names(tmp_path) == []
