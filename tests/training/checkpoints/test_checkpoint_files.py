"""Checkpoints are complete or absent, also after kills, full disks and damage."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import ml_dtypes
import numpy as np
import pytest

import tlkit
from tests.own_disk import through_own_disk
from tlkit.errors import TrainingError
from tlkit.training.checkpoints import checkpoint_files as checkpoints
from tlkit.training.checkpoints.checkpoint_files import (
    CheckpointWarning,
    latest,
    write,
)
from tlkit.training.checkpoints.plain_values import NotPlainError

# Runs the module without the rest of the package, which takes seconds to start.
ALONE = """
import pathlib, resource, sys, types
package = pathlib.Path(sys.argv[1])
for name, path in (("tlkit", package), ("tlkit.training", package / "training")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(path)]
import numpy as np
from tlkit.errors import TrainingError
from tlkit.training.checkpoints import checkpoint_files as checkpoints
directory = sys.argv[2]
def write(number, size=1000):
    arrays = {f"a{i}": np.full(size, number, np.float32) for i in range(20)}
    checkpoints.write(directory, number, arrays, {"number": number}, keep=2)
"""


def alone(code, directory, *, through=()):
    package = pathlib.Path(tlkit.__file__).parent
    arguments = [sys.executable, "-c", ALONE + code, str(package), str(directory)]
    return subprocess.Popen(
        [*through, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def test_everything_comes_back_as_it_was(tmp_path):
    arrays = {
        "weights/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.array([1.5, -0.0, np.inf], np.float16),
        "brain": np.array([[1.5], [np.nan]], ml_dtypes.bfloat16),
        "seeds": np.array([0, 2**32 - 1], np.uint32),
        "mask": np.array([True, False]),
        "count": np.int64(2**62),
        "nothing": np.zeros((0, 5), np.float32),
        "big end first": np.array([1, 2], ">i4"),
    }
    state = {
        "position": {"phase": 1, "rate": 0.1, "none": None},
        "strange": [float("nan"), float("inf"), (1, "ü\ud800"), {3: True}],
        "best": np.float32(0.25),
        "best_weights": [np.eye(2), arrays["brain"]],
    }
    path = write(tmp_path, 7, arrays, state, keep=1)
    assert path == tmp_path / "checkpoints" / "0000000007"
    assert sorted(p.name for p in path.iterdir()) == ["arrays.bin", "state.json"]
    json.loads((path / "state.json").read_text())

    saved = latest(tmp_path)
    assert (saved.number, saved.path) == (7, path)
    assert saved.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert saved.arrays[name].dtype == array.dtype
        assert saved.arrays[name].shape == array.shape
        assert saved.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()
    saved.arrays["weights/a"][:] = 0  # its own memory, to write to
    nan, infinity, pair, numbered = saved.state["strange"]
    assert nan != nan
    assert (infinity, pair, numbered) == (float("inf"), (1, "ü\ud800"), {3: True})
    assert saved.state["position"] == {"phase": 1, "rate": 0.1, "none": None}
    assert type(saved.state["best"]) is np.float32
    np.testing.assert_array_equal(saved.state["best_weights"][0], np.eye(2))
    assert saved.state["best_weights"][1].dtype == ml_dtypes.bfloat16


def test_what_is_not_plain_is_refused_before_anything_is_written(tmp_path):
    write(tmp_path, 1, {}, {}, keep=1)
    with pytest.raises(NotPlainError, match="Dense"):
        write(tmp_path, 2, {}, {"layer": [keras.layers.Dense(1)]}, keep=1)
    with pytest.raises(NotPlainError, match="a is an array of object"):
        write(tmp_path, 2, {"a": np.array([object()])}, {}, keep=1)
    with pytest.raises(NotPlainError, match="r is an array of"):
        write(tmp_path, 2, {"r": np.zeros(2, [("x", "f4")])}, {}, keep=1)
    endless = []
    endless.append(endless)
    with pytest.raises(NotPlainError):
        write(tmp_path, 2, {}, {"endless": endless}, keep=1)
    assert names(tmp_path) == ["0000000001"]


def test_the_last_ones_are_kept(tmp_path):
    assert latest(tmp_path) is None
    for number in (8, 9, 10, 11):
        write(tmp_path, number, {}, {"number": number}, keep=2)
    assert names(tmp_path) == ["0000000010", "0000000011"]
    write(tmp_path, 10**12, {}, {}, keep=2)
    assert latest(tmp_path).number == 10**12


def test_a_number_comes_again_after_a_resume(tmp_path):
    for number, word in ((10, "old"), (20, "old"), (10, "new")):
        write(tmp_path, number, {}, {"word": word}, keep=3)
    # 20 is from a future that this run has left behind.
    assert names(tmp_path) == ["0000000010", "0000000010-2"]
    assert latest(tmp_path).state == {"word": "new"}
    write(tmp_path, 10, {}, {"word": "newer"}, keep=1)
    assert names(tmp_path) == ["0000000010-3"]
    assert latest(tmp_path).state == {"word": "newer"}


def test_twenty_kills_leave_the_newest_whole(tmp_path):
    """Kills at random moments, which with writes back to back are mostly inside one."""
    code = """
last = checkpoints.latest(directory)
number = last.number if last else 0
print("ready", flush=True)
while True:
    number += 1
    write(number)
"""
    moments = random.Random(0)
    newest = inside = 0
    for _ in range(20):
        process = alone(code, tmp_path)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        inside += any(".tlkit-staging-" in name for name in names(tmp_path))
        saved = latest(tmp_path)  # a warning would be an error
        if saved is None:
            assert newest == 0
            continue
        assert saved.number >= newest
        newest = saved.number
        assert saved.state == {"number": newest}
        assert len(saved.arrays) == 20
        for array in saved.arrays.values():
            np.testing.assert_array_equal(array, np.full(1000, newest, np.float32))
    assert newest > 20
    assert inside > 0
    # What the killed writers left goes with the next one.
    write(tmp_path, newest + 1, {}, {}, keep=1)
    assert names(tmp_path) == [f"{newest + 1:010d}"]


FILLED = """
write(1)
write(2)
try:
    write(3, size=100_000)
except TrainingError as error:
    print(error)
write(4)
"""


def alone_on_a_disk(code, disk, options):
    """Runs it on a file system in a name space of its own, where that is allowed."""
    through = through_own_disk(disk, then=f"ls {disk}/*", options=options)
    process = alone(code, disk, through=through)
    said, wrong = process.communicate(timeout=60)
    return said.splitlines(), wrong


def test_a_full_disk_leaves_the_old_ones(tmp_path):
    (message, *there), wrong = alone_on_a_disk(FILLED, tmp_path / "disk", "size=400k")
    assert there == ["0000000002", "0000000004"], wrong
    assert "8.0 MB could not be written" in message
    assert "No space left on device" in message
    assert "unchanged: 0000000001, 0000000002." in message


def test_a_disk_that_is_only_read(tmp_path):
    _, wrong = alone_on_a_disk("write(1)", tmp_path / "disk", "ro")
    assert wrong.splitlines()[-1].startswith("tlkit.errors.TrainingError: A checkpoint")
    assert "Read-only file system. There is none yet." in wrong


def test_a_limit_of_file_sizes_leaves_the_old_ones(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    process = alone(limit + FILLED, tmp_path)
    said, wrong = process.communicate(timeout=60)
    assert process.returncode == 0, wrong
    assert "File too large" in said
    assert "resume=True" in said
    assert names(tmp_path) == ["0000000002", "0000000004"]
    assert latest(tmp_path).state == {"number": 4}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="Not a directory. There is none yet"):
        write(tmp_path / "file", 1, {}, {}, keep=1)
    assert (tmp_path / "file").read_text() == "mine"
    if os.getuid():  # the administrator may write everywhere
        write(tmp_path, 1, {}, {}, keep=1)
        (tmp_path / "checkpoints").chmod(0o500)
        with pytest.raises(TrainingError, match="Permission denied.*: 0000000001"):
            write(tmp_path, 2, {}, {}, keep=1)
        (tmp_path / "checkpoints").chmod(0o700)
        assert latest(tmp_path).number == 1


@pytest.fixture
def two(tmp_path):
    """A directory with checkpoints 1 and 2, and the newer one's folder."""
    for number in (1, 2):
        arrays = {"weights/a": np.full(50, number), "weights/b": np.eye(3)}
        newer = write(tmp_path, number, arrays, {"number": number}, keep=2)
    return tmp_path, newer


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["arrays.bin", "state.json"])
def test_a_flipped_bit_is_noticed_anywhere(two, name):
    directory, newer = two
    size = 8 * (newer / name).stat().st_size
    for place in [0, size - 1, *random.Random(1).sample(range(size), 60)]:
        flip(newer / name, place)
        with pytest.warns(CheckpointWarning, match=f"(?s){newer}.*{name}"):
            saved = latest(directory)
        assert saved.state == {"number": 1}
        np.testing.assert_array_equal(saved.arrays["weights/a"], np.full(50, 1))
        flip(newer / name, place)
    assert latest(directory).state == {"number": 2}


def test_other_damage_is_noticed_and_named(two):
    directory, newer = two
    whole = {path: path.read_bytes() for path in newer.iterdir()}
    arrays, state = newer / "arrays.bin", newer / "state.json"
    cases = [
        (lambda: arrays.write_bytes(whole[arrays][:-1]), "arrays.bin is too short"),
        (lambda: arrays.write_bytes(b""), "arrays.bin is too short"),
        (lambda: arrays.write_bytes(whole[arrays] + b"0"), "arrays.bin is too long"),
        (arrays.unlink, "arrays.bin is missing"),
        (lambda: state.write_bytes(whole[state][:100]), "state.json has changed"),
        (lambda: state.write_bytes(b""), "state.json has changed"),
        (lambda: state.write_bytes(whole[state] + b"\n"), "state.json has changed"),
        (state.unlink, "state.json is missing"),
        (lambda: newer.rename(newer.with_name("3")), "its number is 2, not 3"),
    ]
    for damage, words in cases:
        damage()
        with pytest.warns(CheckpointWarning, match=words):
            assert latest(directory).state == {"number": 1}
        if newer.exists():
            for path, data in whole.items():
                path.write_bytes(data)


def test_the_weight_that_is_damaged_is_named(two):
    directory, newer = two
    flip(newer / "arrays.bin", 8 * 50 * 8 + 3)  # behind 50 integers of 8 bytes
    with pytest.warns(CheckpointWarning, match="weights/b in arrays.bin"):
        latest(directory)


def test_if_all_are_damaged_that_is_an_error(two):
    directory, newer = two
    for path in (directory / "checkpoints").iterdir():
        flip(path / "arrays.bin", 0)
    with pytest.raises(TrainingError, match="(?s)0000000002.*0000000001.*or delete"):
        latest(directory)
    # They go when there are enough whole ones, and do not stand in the way.
    write(directory, 1, {}, {"word": "new"}, keep=1)
    assert latest(directory).state == {"word": "new"}


def test_a_later_format_is_not_taken_for_this_one(two, monkeypatch):
    directory, newer = two
    with monkeypatch.context() as later:
        later.setattr(checkpoints, "_FORMAT", 2)
        write(directory, 3, {}, {"word": "from the future"}, keep=3)
    with pytest.warns(CheckpointWarning, match="format 2, and this tlkit reads 1"):
        assert latest(directory).number == 2


def test_other_files_are_left_alone(two):
    directory, _ = two
    notes = directory / "checkpoints" / "notes.txt"
    notes.write_text("mine")
    write(directory, 3, {}, {}, keep=1)
    assert notes.read_text() == "mine"
    assert latest(directory).number == 3
