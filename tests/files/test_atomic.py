"""Writers that fail, are killed or race leave complete files, or none."""

import errno
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tlkit.files import (
    atomic,
    atomic_file,
    atomic_folder,
    move_into_place,
    remove,
    staging,
)

ROOT = pathlib.Path(__file__).parents[2]
YEAR = 365 * 24 * 3600

# Runs without TensorFlow, which takes seconds to import.
ALONE = """
import os, pathlib, sys, types
package = types.ModuleType("tlkit")
package.__path__ = ["tlkit"]
sys.modules["tlkit"] = package
from tlkit.files import atomic_file, atomic_folder, staging, move_into_place
path = pathlib.Path(sys.argv[1])
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def age(folder, seconds):
    then = time.time() - seconds
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_complete_and_replaces_the_old_one(tmp_path, sync):
    path = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with atomic_file(path, sync=sync) as temporary:
            assert temporary.suffix == ".txt"  # some writers choose a format by it
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
        assert names(path.parent) == ["file.txt"]
    os.umask(umask := os.umask(0))
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("sync", [False, True])
def test_a_folder_appears_complete(tmp_path, sync):
    path = tmp_path / "folder"
    with atomic_folder(path, sync=sync) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("x")
        (temporary / "inner" / "file").chmod(0o444)
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "x"
    assert names(tmp_path) == ["folder"]
    assert path.stat().st_mode & 0o500 == 0o500


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(type(error)), atomic_folder(tmp_path / "f") as temporary:
        (temporary / "half").write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_rename_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"), atomic_file(tmp_path / "file") as new:
        new.write_text("new")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_folders_in_the_way_are_not_replaced(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "theirs").write_text("theirs")
    with pytest.raises(OSError), atomic_file(tmp_path / "taken") as temporary:
        temporary.write_text("mine")
    with pytest.raises(OSError), atomic_folder(tmp_path / "taken") as temporary:
        (temporary / "mine").write_text("mine")
    assert names(tmp_path / "taken") == ["theirs"]
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(OSError), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(OSError), staging(tmp_path / "file") as folder:
        (folder / "made").mkdir()
        move_into_place(folder / "made", tmp_path / "file", first_wins=True)
    with pytest.raises(OSError), atomic_file(tmp_path / "file" / "inside"):
        pass
    assert (tmp_path / "file").read_text() == "theirs"
    assert names(tmp_path) == ["file", "taken"]


def test_the_first_folder_wins_where_that_is_asked_for(tmp_path):
    for word in ("first", "second"):
        with staging(tmp_path / "folder") as folder:
            (folder / "made").mkdir()
            (folder / "made" / word).write_text(word)
            path = move_into_place(
                folder / "made", tmp_path / "folder", first_wins=True
            )
    assert names(path) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_two_processes_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "file"
    code = """
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    with atomic_file(path) as temporary:
        temporary.write_text(sys.argv[2] * 100_000)
"""
    writers = [start(code, path, letter) for letter in "ab"]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n", writer.stderr.read()
    for writer in writers:
        print(file=writer.stdin, flush=True)
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            text = path.read_text()
            assert text in ("a" * 100_000, "b" * 100_000)
            seen.add(text[0])
    for writer in writers:
        _, error = writer.communicate()
        assert writer.returncode == 0, error
    assert seen and names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_nothing_visible_and_is_swept(tmp_path):
    code = """
with atomic_folder(path) as temporary:
    (temporary / "half").write_text("half")
    print(temporary.parent.name, flush=True)
    sys.stdin.readline()
"""
    killed = start(code, tmp_path / "folder")
    left = killed.stdout.readline().strip()
    assert left.startswith(".tlkit-staging-")
    with atomic_file(tmp_path / "file") as temporary:  # the writer is at work
        temporary.write_text("x")
    assert names(tmp_path) == [left, "file"]
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "folder").exists()
    with atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == ["file"]


def test_folders_of_other_machines_are_swept_by_age(tmp_path):
    """A process id says nothing there; a download may take hours."""
    unknown, working, others = (
        tmp_path / name
        for name in (".tlkit-staging-00000000-1-x", ".tlkit-staging-y", ".staging-site")
    )
    for folder in (unknown, working, others):
        (folder / "inside").mkdir(parents=True)
        (folder / "inside" / "archive").write_text("much")
        age(folder, YEAR)
    os.utime(working / "inside" / "archive")
    os.symlink(tmp_path / "nowhere", working / "dangling")
    remove(tmp_path / "nothing")
    assert names(tmp_path) == [".staging-site", ".tlkit-staging-y"]


def test_a_paused_writer_of_this_machine_is_never_swept(tmp_path):
    with staging(tmp_path / "slow") as folder:
        (folder / "part").write_text("x")
        age(folder, YEAR)
        remove(tmp_path / "nothing")
        assert (folder / "part").exists()


def test_an_only_writer_sweeps_everything(tmp_path):
    (tmp_path / ".tlkit-staging-00000000-1-x").mkdir()
    (tmp_path / ".staging-site").mkdir()
    with staging(tmp_path / "next", only_writer=True):
        pass
    assert names(tmp_path) == [".staging-site"]


def test_removal_takes_files_and_folders(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("folder", "file", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == []


def test_network_drives_need_not_sync_folders(tmp_path, monkeypatch):
    sync, failing = os.fsync, errno.EINVAL

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(failing, "no such thing")
        sync(handle)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with atomic_file(tmp_path / "file", sync=True) as temporary:
        temporary.write_text("x")
    failing = errno.EIO
    with pytest.raises(OSError), atomic_file(tmp_path / "file", sync=True) as temporary:
        temporary.write_text("y")
