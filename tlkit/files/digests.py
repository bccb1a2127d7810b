"""The digests of files, and the comparison of a folder with its list of digests.

The digest of a file is its SHA-256. A list of digests is a dict
`{path in the folder: {"size": bytes, "sha256": hexadecimal}}`.
"""

import hashlib
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# File managers write these into any folder; no SavedModel has such a file.
_IGNORED = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})

# Two writes within a tick of the disk's clock give a file the same times. So a folder
# that was written so recently is compared again.
_TICK = 2.0  # seconds

# The state of the files of undamaged folders, by folder and digest of their list.
_undamaged: dict[tuple[pathlib.Path, str], tuple] = {}


def sha256_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(
    folder: pathlib.Path, *, leave_out: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Returns the list of digests of a folder.

    Args:
        folder: The folder.
        leave_out: Paths inside it that are not listed.
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
    """Compares a folder with its list of digests.

    Reads every file. A folder that was undamaged is read again in this process only if
    the times, sizes or inodes of its files have changed.

    Args:
        folder: The folder.
        files: The list of digests that `describe_files` returned for it.
        leave_out: Paths inside it that are not compared.
        key: Digest of `files`, which identifies an earlier comparison; `""` always
            reads.

    Returns:
        One text for each difference, such as `"missing: assets/vocab.txt"`.
    """
    comparison = (folder.absolute(), key)
    start = time.time()
    state = _state(folder, leave_out)
    if key and _undamaged.get(comparison) == state:
        return []
    paths = dict(_files(folder, leave_out))
    differences = [f"missing: {name}" for name in files if name not in paths]
    differences += [f"not in it before: {name}" for name in paths if name not in files]
    for name, facts in files.items():
        if name in paths and not _is_same(paths[name], facts):
            differences.append(f"changed: {name}")
    newest = max((max(times) for *_, times in state), default=0) / 1e9
    if key and not differences and newest < start - _TICK:
        _undamaged[comparison] = state
    return differences


def _is_same(path: pathlib.Path, facts: Mapping[str, Any]) -> bool:
    try:
        same_size = path.stat().st_size == facts["size"]
        return same_size and sha256_of(path) == facts["sha256"]
    except OSError:  # a dangling link, or another process removed it
        return False


def _state(folder: pathlib.Path, leave_out: Iterable[str]) -> tuple:
    """Returns path, inode, size and times of each file."""
    state = []
    for name, path in _files(folder, leave_out):
        try:
            facts = path.stat()
        except OSError:  # a dangling link, or another process removed it
            continue
        times = facts.st_mtime_ns, facts.st_ctime_ns
        state.append((name, facts.st_ino, facts.st_size, times))
    return tuple(state)


def _files(
    folder: pathlib.Path, leave_out: Iterable[str]
) -> Iterator[tuple[str, pathlib.Path]]:
    """Yields the files in a folder, by their paths in it, sorted."""
    left_out = frozenset(leave_out)
    files = []
    # Links to folders are not followed: files behind them count as missing.
    for parent, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(parent, name)
            inside = path.relative_to(folder).as_posix()
            if inside not in left_out and name not in _IGNORED:
                files.append((inside, path))
    yield from sorted(files)
