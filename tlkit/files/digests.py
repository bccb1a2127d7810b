"""What is in a folder, file by file: sizes and SHA-256."""

from __future__ import annotations

import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What file managers leave; no SavedModel has one.
_DROPPINGS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

# A file that is written twice within a tick of the disk's clock keeps its times.
_TICK = 2.0  # seconds

# What was found whole in this process, and how it looked then.
_seen: dict[tuple[pathlib.Path, str], tuple] = {}


def sha256_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(
    folder: pathlib.Path, *, leave_out: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Returns `size` in bytes and `sha256` of every file in a folder, by its path.

    Args:
        folder: The folder.
        leave_out: Paths inside it that do not count.
    """
    return {
        name: {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for name, path in _files(folder, leave_out)
    }


def damages(
    folder: pathlib.Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    leave_out: Iterable[str] = (),
    key: str = "",
) -> list[str]:
    """Compares a folder with what it should hold.

    A folder that was found whole is read again in this process only when the times,
    the sizes or the inodes of its files have changed.

    Args:
        folder: The folder.
        files: What `describe_files` gave for it.
        leave_out: Paths inside it that do not count.
        key: Digest of `files`, by which an earlier comparison is known; `""` compares
            anew.

    Returns:
        What is wrong, such as `"missing: assets/vocab.txt"`; empty if nothing is.
    """
    memory = (folder.absolute(), key)
    before = time.time()
    looks = _looks(folder, leave_out)
    if key and _seen.get(memory) == looks:
        return []
    there = dict(_files(folder, leave_out))
    wrong = [f"missing: {name}" for name in files if name not in there]
    wrong += [f"not in it before: {name}" for name in there if name not in files]
    for name, facts in files.items():
        if name in there and not _is_same(there[name], facts):
            wrong.append(f"changed: {name}")
    newest = max((max(times) for *_, times in looks), default=0) / 1e9
    if key and not wrong and newest < before - _TICK:
        _seen[memory] = looks
    return wrong


def _is_same(path: pathlib.Path, facts: Mapping[str, Any]) -> bool:
    try:
        same = path.stat().st_size == facts["size"]
        return same and sha256_of(path) == facts["sha256"]
    except OSError:  # a link to nothing, or another process took it away
        return False


def _looks(folder: pathlib.Path, leave_out: Iterable[str]) -> tuple:
    looks = []
    for name, path in _files(folder, leave_out):
        try:
            facts = path.stat()
        except OSError:  # a link to nothing, or another process took it away
            continue
        times = facts.st_mtime_ns, facts.st_ctime_ns
        looks.append((name, facts.st_ino, facts.st_size, times))
    return tuple(looks)


def _files(
    folder: pathlib.Path, leave_out: Iterable[str]
) -> Iterator[tuple[str, pathlib.Path]]:
    left = frozenset(leave_out)
    found = []
    # Links to folders are not followed: what is behind them counts as not there.
    for place, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(place, name)
            inside = path.relative_to(folder).as_posix()
            if inside not in left and name not in _DROPPINGS:
                found.append((inside, path))
    yield from sorted(found)
