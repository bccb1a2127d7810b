from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from tlkit.errors import SourceError
from tlkit.files import digests
from tlkit.sources import resolve
from tlkit.sources.store.lock import LOCK_FILE, Lock, check_lock, make_lock, write_lock


@pytest.fixture
def locked(tiny_model, tmp_path) -> pathlib.Path:
    folder = pathlib.Path(shutil.copytree(tiny_model, tmp_path / "model"))
    lock = make_lock(folder, handle="tiny", address="https://x/tiny/1", licence="MIT")
    write_lock(folder, lock)
    return folder


def test_what_a_lock_says(locked):
    facts = json.loads((locked / LOCK_FILE).read_text("utf-8"))
    assert facts["format"] == 1
    assert (facts["handle"], facts["address"]) == ("tiny", "https://x/tiny/1")
    assert facts["licence"] == "MIT"
    assert facts["time"].endswith("+00:00")
    words = facts["files"]["assets/words.txt"]
    assert words["size"] == 8 and len(words["sha256"]) == 64
    sizes = {name: entry["size"] for name, entry in facts["files"].items()}
    assert facts["size"] == sum(sizes.values())
    assert sizes == {
        path.relative_to(locked).as_posix(): path.stat().st_size
        for path in locked.rglob("*")
        if path.is_file() and path.name != LOCK_FILE
    }
    assert check_lock(locked) == Lock.from_json((locked / LOCK_FILE).read_text("utf-8"))
    assert resolve(locked).path == locked


def test_a_folder_without_a_lock_is_not_checked(tiny_model):
    assert check_lock(pathlib.Path(tiny_model)) is None


def remove(folder):
    (folder / "assets/words.txt").unlink()


def change(folder):
    (folder / "assets/words.txt").write_text("one\nten\n")


def cut(folder):
    (folder / "saved_model.pb").write_bytes(b"")


def add(folder):
    (folder / "saved_model.cpb").write_bytes(b"x")


def link(folder):
    shutil.move(folder / "variables", folder.parent / "variables")
    (folder / "variables").symlink_to(folder.parent / "variables")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove, "Missing: assets/words.txt"),
        (change, "Changed: assets/words.txt"),
        (cut, "Changed: saved_model.pb"),
        (add, "Not in it before: saved_model.cpb"),
        (link, "Missing: variables/variables.data.*; missing: variables/var.*index"),
    ],
)
def test_every_change_is_named(locked, damage, said):
    damage(locked)
    with pytest.raises(SourceError, match=said) as info:
        resolve(locked)
    assert "tlkit fetch tiny DIRECTORY" in str(info.value)
    (locked / LOCK_FILE).unlink()  # as the error says, if it was on purpose
    assert check_lock(locked) is None


def test_a_version_brings_its_lock(locked, tmp_path):
    shutil.move(locked, tmp_path / "shelf/1")
    assert resolve(tmp_path / "shelf").path == tmp_path / "shelf/1"
    add(tmp_path / "shelf/1")
    with pytest.raises(SourceError, match="Not in it before"):
        resolve(tmp_path / "shelf")


def test_what_file_managers_leave_does_not_count(locked):
    (locked / ".DS_Store").write_bytes(b"x")
    assert check_lock(locked)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "handle": "", "address": "", "time": "", "licence": "", '
        '"files": [], "archive": {}}',
        '{"format": 1, "handle": "", "address": "", "time": "", "licence": "", '
        '"files": {"a": {"size": 1}}, "archive": {}}',
    ],
)
def test_a_lock_that_is_none(locked, text):
    (locked / LOCK_FILE).write_text(text, "utf-8")
    with pytest.raises(SourceError, match=r"tlkit.lock is damaged"):
        resolve(locked)


def test_a_lock_notices_its_own_changes(locked):
    path = locked / LOCK_FILE
    path.write_text(path.read_text("utf-8").replace("MIT", "BSD"), "utf-8")
    with pytest.raises(SourceError, match="it was changed since it was written"):
        resolve(locked)


def test_a_folder_is_read_once_while_nothing_touches_it(locked, monkeypatch):
    read = []

    def counted(path, sha256_of=digests.sha256_of):
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(digests, "sha256_of", counted)
    check_lock(locked)
    files = len(read)
    # Written just now: the disk's clock might not tell a second writing.
    check_lock(locked)
    assert len(read) == 2 * files
    monkeypatch.setattr(digests, "_TICK", -60.0)
    check_lock(locked)
    check_lock(locked)
    assert len(read) == 3 * files
    words = locked / "assets/words.txt"
    words.write_text("one\nten\n")
    with pytest.raises(SourceError, match="Changed"):
        check_lock(locked)
    words.write_text("one\ntwo\n")
    check_lock(locked)
