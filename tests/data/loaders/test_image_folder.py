import os

import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tests.data.image_files import (
    encoded,
    enormous_png,
    exif,
    flipped,
    saved,
    scene,
    with_exif,
    write_classes,
)
from tlkit.errors import DataError
from tlkit.models.preprocessors import ImagePreprocessor


def _all(splits):
    found = []
    for name in splits.sizes:
        found += list(getattr(splits, name).as_numpy_iterator())
    return found


def test_every_picture_comes_back_once_with_its_label(tmp_path):
    written = write_classes(tmp_path, {"dog": 20, "cat": 10, "ant": 10})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.labels == ("ant", "cat", "dog")
    assert splits.kind == "image"
    assert splits.skipped == ()
    assert splits.sizes == {"train": 32, "validation": 4, "test": 4}
    found = {raw: splits.labels[label] for raw, label in _all(splits)}
    expected = {
        contents: os.path.basename(os.path.dirname(path))
        for path, contents in written.items()
    }
    assert found == expected
    counts = np.bincount([label for _, label in splits.test.as_numpy_iterator()])
    assert counts.tolist() == [1, 1, 2]


def test_elements_are_strings_with_int32_labels(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.train.element_spec == (
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int32),
    )
    decoded = splits.train.map(
        lambda raw, label: (tf.io.decode_image(raw, expand_animations=False), label)
    )
    assert next(iter(decoded))[0].shape == (7, 9, 3)


def test_the_same_seed_gives_the_same_splits_in_the_same_order(tmp_path):
    write_classes(tmp_path, {"a": 15, "b": 15})
    first, again, other = (
        _all(tlkit.data.image_folder(tmp_path, seed=seed, verbose=0))
        for seed in (4, 4, 5)
    )
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)


def test_training_pictures_are_mixed(tmp_path):
    write_classes(tmp_path, {"a": 30, "b": 30})
    splits = tlkit.data.image_folder(tmp_path, validation=0, test=0, verbose=0)
    assert splits.validation is None
    assert splits.test is None
    labels = [int(label) for _, label in splits.train]
    assert 5 < sum(labels[:30]) < 25


def test_splits_in_folders_are_taken_as_they_are(tmp_path):
    train = write_classes(tmp_path / "train", {"a": 10, "b": 10})
    test = write_classes(tmp_path / "Test", {"b": 3})
    validation = write_classes(tmp_path / "val", {"a": 2, "b": 1})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.sizes == {"train": 20, "validation": 3, "test": 3}
    for dataset, written in (
        (splits.train, train),
        (splits.test, test),
        (splits.validation, validation),
    ):
        assert {raw for raw, _ in dataset.as_numpy_iterator()} == set(written.values())
    assert [int(label) for _, label in splits.test] == [1, 1, 1]


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev", "VAL"])
def test_names_of_the_validation_folder(tmp_path, name):
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / name, {"a": 1})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.sizes == {"train": 4, "validation": 1}


def test_a_missing_validation_split_is_taken_from_train(tmp_path):
    write_classes(tmp_path / "training", {"a": 10, "b": 10})
    write_classes(tmp_path / "testing", {"a": 1, "b": 1})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.sizes == {"train": 18, "validation": 2, "test": 2}


def test_trains_may_be_a_class(tmp_path):
    write_classes(tmp_path, {"train": 5, "bus": 5})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.labels == ("bus", "train")


def test_nested_hidden_and_other_files(tmp_path):
    write_classes(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "more" / "still").mkdir(parents=True)
    (tmp_path / "a" / "more" / "still" / "deep.PNG").write_bytes(encoded("PNG"))
    for name in ("a/.hidden.jpg", "a/notes.txt", ".DS_Store", "loose.jpg"):
        (tmp_path / name).write_bytes(b"not a picture")
    (tmp_path / ".git").mkdir()
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert splits.labels == ("a", "b")
    assert sum(splits.sizes.values()) == 11


def _write_broken(directory):
    jpeg, png = encoded("JPEG", size=(64, 64)), encoded("PNG", size=(64, 64))
    broken = {
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "empty.jpg": b"",
        "flipped.png": flipped(png, len(png) // 2),
        "text.jpg": b"<html>404 not found</html>",
        "picture.tiff": encoded("TIFF"),
        "enormous.png": enormous_png(30_000, 30_000),
        "cut.webp": encoded("WEBP", size=(64, 64))[:300],
        "cut.bmp": encoded("BMP", size=(64, 64))[:3000],
        "three.jpg": jpeg[:3],
    }
    for name, contents in broken.items():
        (directory / name).write_bytes(contents)
    # A wrong name is no harm: the contents decide.
    (directory / "really_png.jpg").write_bytes(png)
    (directory / "really_gif.bmp").write_bytes(encoded("GIF"))
    (directory / "really_webp.png").write_bytes(encoded("WEBP"))
    (directory / "good.BMP").write_bytes(encoded("BMP"))
    return {str(directory / name) for name in broken}


def test_broken_pictures_are_skipped_with_a_warning_that_names_them(tmp_path):
    write_classes(tmp_path, {"a": 6, "b": 6})
    broken = _write_broken(tmp_path / "b")
    with pytest.warns(tlkit.data.SkippedWarning) as warnings:
        splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert len(warnings) == 1
    assert warnings[0].filename == __file__
    message = str(warnings[0].message)
    assert message.startswith("Skipped 10 images")
    assert all(path in message for path in broken)
    assert {entry.path for entry in splits.skipped} == broken
    reasons = {os.path.basename(entry.path): entry.reason for entry in splits.skipped}
    assert reasons["empty.jpg"] == "Input is empty."
    assert reasons["cut.jpg"].startswith("jpeg::Uncompress failed.")
    assert reasons["flipped.png"].startswith("Invalid PNG data")
    assert reasons["text.jpg"].startswith("Unknown image file format.")
    assert reasons["enormous.png"] == (
        "The image is too large: 30000 by 30000 pixels. At most 268,435,456 pixels "
        "are decoded; those of a JPEG are counted after it is reduced. Make it smaller."
    )
    assert reasons["cut.webp"] == "Failed to decode WebP image."
    assert reasons["cut.bmp"].startswith("Input size should match")
    assert reasons["three.jpg"].startswith("Invalid JPEG data")
    assert sum(splits.sizes.values()) == 12 + 4
    assert "skipped 10" in repr(splits)


def test_a_long_list_of_broken_pictures_is_counted(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    for number in range(14):
        (tmp_path / "a" / f"bad{number:02}.jpg").write_bytes(b"bad")
    with pytest.warns(tlkit.data.SkippedWarning, match="and 4 more") as warnings:
        splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert "bad09.jpg" in str(warnings[0].message)
    assert "bad10.jpg" not in str(warnings[0].message)
    assert len(splits.skipped) == 14


def test_a_broken_picture_can_be_an_error(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    path = tmp_path / "b" / "bad.jpg"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="Input is empty") as caught:
        tlkit.data.image_folder(tmp_path, on_error="raise", verbose=0)
    assert str(path) in str(caught.value)
    assert 'on_error="skip"' in str(caught.value)


def test_a_picture_that_vanished_is_skipped(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.warns(tlkit.data.SkippedWarning, match=r"gone\.jpg.*No such file"):
        splits = tlkit.data.image_folder(tmp_path, verbose=0)
    assert sum(splits.sizes.values()) == 6


def test_the_check_can_be_turned_off(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "bad.jpg").write_bytes(b"bad")
    splits = tlkit.data.image_folder(tmp_path, verify=False, verbose=0)
    assert splits.skipped == ()
    assert sum(splits.sizes.values()) == 7


def test_a_class_whose_pictures_are_all_broken(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3, "c": 0})
    (tmp_path / "c" / "bad.jpg").write_bytes(b"bad")
    with (
        pytest.warns(tlkit.data.SkippedWarning),
        pytest.raises(DataError, match=r"1 of 3 classes.*no images.*'c'"),
    ):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_an_empty_class(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3, "hollow": 0})
    with pytest.raises(DataError, match=r"no images to train on: 'hollow'"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_one_class(tmp_path):
    write_classes(tmp_path, {"only": 3})
    with pytest.raises(DataError, match="at least two classes; .* one class, 'only'"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_a_label_that_is_not_seen_in_training(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "test", {"a": 3, "c": 2})
    with pytest.raises(DataError, match=r"test split.*'c' \(2 images\)"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_a_split_without_images(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "test", {"a": 0})
    with pytest.raises(DataError, match=r"The test split in .* has no images"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_splits_and_classes_side_by_side(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "test", {"a": 3})
    (tmp_path / "extra").mkdir()
    with pytest.raises(DataError, match=r"splits \(train, test\).*others \(extra\)"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_two_folders_for_one_split(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    (tmp_path / "val").mkdir()
    (tmp_path / "valid").mkdir()
    with pytest.raises(DataError, match="two folders for the validation split"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_no_class_folders(tmp_path):
    (tmp_path / "one.jpg").write_bytes(encoded())
    with pytest.raises(DataError, match=r"no class folders \(1 files outside of one"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_splits_without_class_folders(tmp_path):
    write_classes(tmp_path, {"train": 3, "test": 3})
    with pytest.raises(DataError, match=r"train has no class folders \(3 files"):
        tlkit.data.image_folder(tmp_path, verbose=0)


def test_no_such_folder(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=r"no folder .*flower/photos.*flowers"):
        tlkit.data.image_folder(tmp_path / "flower" / "photos", verbose=0)


def test_an_archive_and_a_bucket(tmp_path):
    (tmp_path / "flowers.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack it first"):
        tlkit.data.image_folder(tmp_path / "flowers.zip")
    with pytest.raises(DataError, match="on this machine's disk"):
        tlkit.data.image_folder("gs://bucket/flowers")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("on_error", "ignore", 'on_error must be "skip" or "raise"; got \'ignore\''),
        ("validation", -0.1, "size of a split is a fraction .* got -0.1"),
        ("test", 10.0, "size of a split is a fraction .* got 10.0"),
        ("test", "0.1", "size of a split is a fraction .* got '0.1'"),
        ("seed", -3, "seed must be an integer"),
    ],
)
def test_options_are_checked_before_files_are_read(tmp_path, option, value, message):
    with pytest.raises(DataError, match=message):
        tlkit.data.image_folder(tmp_path / "nowhere", **{option: value})


def test_silent_and_with_lines(tmp_path, capsys, monkeypatch):
    write_classes(tmp_path, {"a": 3, "b": 3})
    monkeypatch.setattr("tlkit.progress._SECONDS", 0.0)
    tlkit.data.image_folder(tmp_path, verbose=0)
    assert "checking" not in capsys.readouterr().err
    tlkit.data.image_folder(tmp_path)
    assert "checking images: 6 of 6, 0 s left" in capsys.readouterr().err


def test_moving_elsewhere_does_not_lose_the_files(tmp_path, monkeypatch):
    write_classes(tmp_path / "data", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    splits = tlkit.data.image_folder("data", verbose=0)
    monkeypatch.chdir("/")
    assert len(_all(splits)) == 6


def test_what_is_printed(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 10})
    splits = tlkit.data.image_folder(tmp_path, verbose=0)
    expected = "Splits(image: train 16, validation 2, test 2; 2 labels: 'a', 'b')"
    assert str(splits) == repr(splits) == expected


def test_what_passes_the_check_is_decoded_for_training(tmp_path):
    kinds = {
        "a.jpg": saved(scene(64, 48).convert("CMYK"), "JPEG"),
        "b.jpg": with_exif(saved(scene(64, 48), "JPEG"), exif(6)),
        "c.png": saved(scene(64, 48).convert("P"), "PNG", transparency=0),
        "d.gif": saved(scene(64, 48), "GIF"),
        "e.webp": saved(scene(64, 48).convert("RGBA"), "WEBP"),
        "f.bmp": saved(scene(64, 48).quantize(16), "BMP"),
    }
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
        for name, contents in kinds.items():
            (tmp_path / label / name).write_bytes(contents)
    splits = tlkit.data.image_folder(tmp_path, validation=0, test=0, verbose=0)
    assert splits.skipped == ()
    assert splits.sizes == {"train": 12}
    batches = tlkit.data.batches(
        splits.train, ImagePreprocessor(16, 12), batch_size=5, shuffle=True
    )
    first, again = (
        np.concatenate([images for images, _ in batches.as_numpy_iterator()])
        for _ in range(2)
    )
    assert first.shape == (12, 16, 12, 3)
    np.testing.assert_array_equal(first, again)


def test_a_thousand_classes_with_one_picture_each(tmp_path):
    write_classes(tmp_path, {f"class{number:04}": 1 for number in range(1000)})
    with pytest.raises(DataError, match="must keep one .* type validation=0, test=0"):
        tlkit.data.image_folder(tmp_path, verify=False, verbose=0)
    splits = tlkit.data.image_folder(tmp_path, validation=0, test=0, verbose=0)
    assert len(splits.labels) == 1000
    assert splits.sizes == {"train": 1000}
    assert sorted(int(label) for _, label in splits.train) == list(range(1000))
