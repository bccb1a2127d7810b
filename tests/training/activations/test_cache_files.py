"""Activations on disk are intact, or they are recomputed."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tests.own_disk import through_own_disk
from tests.training.activations import test_cached_activations as tools
from tlkit.data.examples.example_order import order
from tlkit.training.activations import cache_folder
from tlkit.training.activations.cache_folder import folder_size, make_room

phases = tools.phases


@pytest.fixture(scope="module")
def photos():
    return tools.made_photos()


# One for all tests that do not change it: none trains.
same_model = functools.cache(tools.image_model)


def activations_of(encoder, data, folder, trained=("head",), model=None, **options):
    model = same_model(encoder) if model is None else model
    options = {"where": "disk", "directory": folder} | options
    return tools.activations_for(model, data, phases(*trained), **options)


def features_of(activations):
    """What the first phase is trained on, in the order of the data."""
    part, (feed, _) = activations.part_and_feeds(0)
    assert part is not activations.run.model
    return np.concatenate([inputs for inputs, *_ in feed.batches(None)])


def reads(data):
    counted = tools.Counted(*data)
    return counted, (counted.dataset, None)


def the_one(folder):
    (found,) = [p for p in pathlib.Path(folder).iterdir() if p.name[0] != "."]
    return found


def names(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


@pytest.fixture
def cached(image_encoder, photos, tmp_path):
    """A folder with features, and the features."""
    features = features_of(activations_of(image_encoder, photos, tmp_path))
    return tmp_path, features


def test_a_second_run_finds_it(image_encoder, photos, tmp_path, capsys):
    first, data = reads(photos)
    features = features_of(activations_of(image_encoder, data, tmp_path))
    assert first.reads == 2 * 23  # for the digest, and for the features
    folder = the_one(tmp_path)
    assert names(folder) == ["column-0.bin", "index.json"]
    assert (folder / "column-0.bin").stat().st_size == 23 * 6 * 4
    os.utime(folder, (1, 1))
    second, data = reads(photos)
    found = features_of(activations_of(image_encoder, data, tmp_path))
    assert second.reads == 23 + 23  # for the digest, and for the labels
    np.testing.assert_array_equal(found, features)
    assert folder.stat().st_mtime > 1  # it is the one that was used last
    assert names(tmp_path) == [folder.name]
    assert "unusable" not in capsys.readouterr().err


def test_what_is_of_something_else_is_not_found(image_encoder, photos, cached):
    folder, features = cached
    x, y = photos
    changed = x.copy()
    changed[22, 7, 7, 2] ^= 1
    assert not np.array_equal(
        features_of(activations_of(image_encoder, (changed, y), folder)), features
    )
    assert len(names(folder)) == 2
    model = tools.image_model(image_encoder)
    weight = next(v for v in model.weights if v.path.endswith("moving_mean"))
    weight.assign_add(tf.one_hot(0, weight.shape[0]))
    found = features_of(activations_of(None, photos, folder, model=model))
    assert np.abs(found - features).max() > 1e-3
    assert len(names(folder)) == 3
    activations_of(image_encoder, photos, folder, dtype="float16").part_and_feeds(0)
    assert len(names(folder)) == 4
    activations_of(image_encoder, photos, folder, trained=(1,)).part_and_feeds(0)
    assert len(names(folder)) == 5
    larger = tools.tlkit.image_classifier(image_encoder, tools.LABELS, image_size=16)
    activations_of(None, photos, folder, model=larger).part_and_feeds(0)
    assert len(names(folder)) == 6
    # The head and the labels have no part in it.
    other = tools.image_model(image_encoder)
    other.get_layer("head").dense.kernel.assign_add(tf.ones([6, 3]))
    found = features_of(activations_of(None, (x, (y + 1) % 3), folder, model=other))
    np.testing.assert_array_equal(found, features)
    assert len(names(folder)) == 6


def test_labels_and_weights_come_with_what_is_found(image_encoder, photos, cached):
    x, y = photos
    weights = np.linspace(0, 1, 23, dtype=np.float32)
    split = tf.data.Dataset.from_tensor_slices((x, (y + 1) % 3, weights))
    activations = activations_of(image_encoder, (split, None), cached[0])
    _, (feed, _) = activations.part_and_feeds(0)
    rows = order(23, batch_size=4, shuffle=True, epoch=1, buffer=23).rows
    for row, (inputs, labels, own) in zip(rows, feed.batches(1), strict=True):
        row = row[row >= 0]
        np.testing.assert_array_equal(inputs, cached[1][row])
        np.testing.assert_array_equal(labels, (y[row] + 1) % 3)
        np.testing.assert_array_equal(own, weights[row])
    assert len(names(cached[0])) == 1


# === Damage ===


def spoiled(folder, name, place, bit):
    path = folder / name
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def assert_recomputed(image_encoder, photos, cached, capsys, reason=""):
    folder, features = cached
    damaged = the_one(folder)
    found = features_of(activations_of(image_encoder, photos, folder))
    said = capsys.readouterr().err
    assert f"The cache in {damaged} is unusable" in said and reason in said
    np.testing.assert_array_equal(found, features)
    assert names(folder) == [damaged.name]
    features_of(activations_of(image_encoder, photos, folder))
    assert "unusable" not in capsys.readouterr().err


def test_a_flipped_bit_is_noticed_wherever_it_is(image_encoder, photos, cached, capsys):
    folder, features = cached
    activations = activations_of(image_encoder, photos, folder)
    entry = activations._folder.entry(
        activations.plan.phases[0].kept, activations.feeds[0]
    )
    assert entry.find() is not None
    whole, copy = the_one(folder), folder / ".copy"
    shutil.copytree(whole, copy)
    for name in names(whole):
        size = (whole / name).stat().st_size
        for place in sorted({0, 1, size // 3, size // 2, size - 2, size - 1}):
            for bit in (0, 5, 7):
                spoiled(whole, name, place, bit)
                capsys.readouterr()
                assert entry.find() is None, (name, place, bit)
                assert f"{whole} is unusable" in capsys.readouterr().err
                assert not whole.exists()
                shutil.copytree(copy, whole)
    assert entry.find() is not None


@pytest.mark.parametrize("name", ["index.json", "column-0.bin"])
def test_what_is_damaged_is_recomputed(image_encoder, photos, cached, capsys, name):
    spoiled(the_one(cached[0]), name, 70, 3)
    reasons = {"index.json": "its index is damaged", "column-0.bin": "example 2 in it"}
    assert_recomputed(image_encoder, photos, cached, capsys, reasons[name])


def test_what_is_half_there_is_recomputed(image_encoder, photos, cached, capsys):
    folder = the_one(cached[0])

    def again(reason):
        assert_recomputed(image_encoder, photos, cached, capsys, reason)

    (folder / "index.json").unlink()
    again("its index is missing")
    os.truncate(folder / "column-0.bin", 23 * 6 * 4 - 1)
    again("column-0.bin is missing or too short")
    (folder / "column-0.bin").unlink()
    again("column-0.bin is missing or too short")
    (folder / "index.json").write_text("[]")
    again("its index is damaged")
    shutil.rmtree(folder)
    folder.mkdir()
    again("its index is missing")


def test_an_outdated_format_is_recomputed_and_removed(
    image_encoder, photos, cached, monkeypatch
):
    folder, features = cached
    shards = folder / ("0" * 32)  # as tlkit 0.1 named its folders
    shards.mkdir()
    (shards / "rows-00000.bin").write_bytes(bytes(9))
    monkeypatch.setattr(cache_folder, "FORMAT", cache_folder.FORMAT + 1)
    found = features_of(activations_of(image_encoder, photos, folder))
    np.testing.assert_array_equal(found, features)
    assert the_one(folder).name.startswith("v3-")


def test_what_is_damaged_later_stops_the_training(image_encoder, photos, cached):
    activations = activations_of(image_encoder, photos, cached[0])
    _, (feed, _) = activations.part_and_feeds(0)
    spoiled(the_one(cached[0]), "column-0.bin", 17 * 6 * 4 + 5, 0)
    with pytest.raises(tf.errors.OpError, match="of example 17 .* are damaged"):
        list(feed.batches(None))


# === Room ===

FULL = """
import pathlib, sys
import numpy as np
from tests.training.activations import test_cached_activations as tools
encoder, disk = map(pathlib.Path, sys.argv[1:])
x, y = tools.made_photos()
x, y = np.concatenate([x] * 300), np.concatenate([y] * 300)
model = tools.image_model(encoder)
activations = tools.activations_for(
    model, (x, y), tools.phases(1), where="disk", directory=disk / "cache"
)
part, feeds = activations.part_and_feeds(0)
assert part is model and feeds == activations.feeds
"""


def start_code(code, *arguments, through=()):
    start = subprocess.Popen if through else forked.Popen
    return start(
        [*through, sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[3],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def test_a_full_disk_is_no_reason_to_stop(image_encoder, tmp_path):
    """On a file system of its own, where one can be mounted."""
    disk = tmp_path / "disk"
    through = through_own_disk(disk, then=f"ls -A {disk}/cache && du -s {disk}")
    job = start_code(FULL, image_encoder, disk, through=through)
    printed, said = job.communicate()
    assert job.returncode == 0, said[-3000:]
    assert "Nothing is cached at stage1" in said
    assert "No space left on device" in said
    assert printed.split() == ["0", str(disk)]


KILLED = """
import os, pathlib, sys
from tests.training.activations import test_cached_activations as tools
from tlkit.training.activations.cached_rows import CachedRows
encoder, folder = map(pathlib.Path, sys.argv[1:])
write = CachedRows.write

def killed(self, rows, batch):
    write(self, rows, batch)
    if 11 in rows:
        os._exit(7)

CachedRows.write = killed
tools.activations_for(
    tools.image_model(encoder), tools.made_photos(), tools.phases("head"),
    where="disk", directory=folder,
).part_and_feeds(0)
"""


def test_a_killed_write_leaves_nothing_that_is_found(
    image_encoder, photos, cached, tmp_path, capsys
):
    folder = tmp_path / "killed"
    job = start_code(KILLED, image_encoder, folder)
    _, said = job.communicate()
    assert job.returncode == 7, said[-3000:]
    (left,) = names(folder)
    assert left.startswith(".tlkit-staging-")
    counted, data = reads(photos)
    found = features_of(activations_of(image_encoder, data, folder))
    assert counted.reads == 2 * 23
    np.testing.assert_array_equal(found, cached[1])
    assert "unusable" not in capsys.readouterr().err
    assert left not in names(folder) and len(names(folder)) == 1


def test_what_was_not_used_for_longest_makes_room(image_encoder, photos, tmp_path):
    limit = 3 * 1200  # three folders of 552 bytes and their indices

    def folder_of(shift):
        data = photos[0] ^ np.uint8(shift), photos[1]
        before = set(names(tmp_path))
        activations = activations_of(image_encoder, data, tmp_path, disk_limit=limit)
        features_of(activations)
        return set(names(tmp_path)) - before

    tmp_path.mkdir(exist_ok=True)
    made = [folder_of(shift) for shift in (1, 2)]
    for age, one in enumerate(made):
        os.utime(tmp_path / one.copy().pop(), (1000 + age, 1000 + age))
    assert folder_of(1) == set()  # used again, so it is not the oldest one anymore
    size = max(folder_size(path) for path in tmp_path.iterdir())
    for shift in range(3, 9):
        folder_of(shift)
        sizes = [folder_size(path) for path in tmp_path.iterdir()]
        assert sum(sizes) <= limit + size
        if made[1].isdisjoint(names(tmp_path)):
            break
    assert made[0] <= set(names(tmp_path)) and shift < 8


def test_what_is_larger_than_the_limit_is_done_without(
    image_encoder, photos, cached, capsys
):
    folder, _ = cached
    activations = activations_of(
        image_encoder, photos, folder, disk_limit=1000, trained=(1,)
    )
    part, feeds = activations.part_and_feeds(0)
    assert part is activations.run.model and feeds == activations.feeds
    said = capsys.readouterr().err
    assert "Nothing is cached at stage1" in said and "disk_limit" in said
    assert len(names(folder)) == 1  # nothing was removed for it


def test_a_folder_that_cannot_be_made_is_done_without(
    image_encoder, photos, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    activations = activations_of(image_encoder, photos, folder)
    part, _ = activations.part_and_feeds(0)
    assert part is activations.run.model
    assert "Nothing is cached at features" in capsys.readouterr().err


# === Files ===


def test_room_is_made_by_age(tmp_path):
    def folder(number, version="v2-"):
        return tmp_path / f"{version}{number:032x}"

    outdated = folder(9, version="")
    for age, path in enumerate([*map(folder, range(4)), outdated]):
        path.mkdir()
        (path / "x").write_bytes(bytes(100))
        os.utime(path, (age, age))
    others = [tmp_path / ".tlkit-staging-x", tmp_path / "photos", folder(0, "v3-")]
    for path in others:  # of the user, of a running process, of a later tlkit
        path.mkdir()
    assert not make_room(tmp_path, 600, 500)
    assert outdated.exists()
    assert make_room(tmp_path, 100, 500)
    assert set(tmp_path.iterdir()) == {*others, *map(folder, range(4))}
    assert make_room(tmp_path, 250, 500)
    assert set(tmp_path.iterdir()) == {*others, folder(2), folder(3)}


TWO = """
import pathlib, sys
from tests.training.activations import test_cached_activations as tools
encoder, folder = map(pathlib.Path, sys.argv[1:])
for trained in ("head", 1):
    part, (feed, _) = tools.activations_for(
        tools.image_model(encoder), tools.made_photos(), tools.phases(trained),
        where="disk", directory=folder,
    ).part_and_feeds(0)
    print(sum(float(abs(inputs if trained == "head" else inputs["cut"]).numpy().sum())
              for inputs, *_ in feed.batches(None)))
"""


def test_two_processes_may_fill_and_read_the_same_cache(image_encoder, tmp_path):
    both = [start_code(TWO, image_encoder, tmp_path) for _ in range(2)]
    (one, said), (other, said_too) = (job.communicate() for job in both)
    assert [job.returncode for job in both] == [0, 0], said[-3000:]
    assert one == other and len(one.split()) == 2
    assert len(names(tmp_path)) == 2
    assert "unusable" not in said + said_too
