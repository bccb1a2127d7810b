"""Entries of the cache: a model, and beside it what it should be."""

from __future__ import annotations

import hashlib
import json
import pathlib

from ...files import cache_folder, damages, put, remove
from .lock import Lock

_HANDLE_FILE = "handle.json"


def entry_of(handle: str) -> pathlib.Path:
    """Returns the folder that a handle's model is kept in, whether it is or not."""
    key = hashlib.sha256(handle.encode("utf-8")).hexdigest()
    return cache_folder() / "models" / key


def kept_model(handle: str) -> pathlib.Path | None:
    """Returns a handle's model if it is in the cache, every file as it came.

    Every file is read and its SHA-256 compared, once in a process. An entry of
    earlier versions, which noted sizes only, counts as none.
    """
    entry = entry_of(handle)
    lock = read_entry(entry / "model")
    if lock is None or damages(entry / "model", lock.files, key=lock.digest):
        return None
    return entry / "model"


def read_entry(model: pathlib.Path) -> Lock | None:
    """Returns what stands beside a model of the cache, or `None` elsewhere."""
    try:
        text = (model.parent / _HANDLE_FILE).read_text(encoding="utf-8")
        return Lock.from_json(text)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def keep(made: pathlib.Path, lock: Lock, handle: str) -> pathlib.Path:
    """Moves a finished folder with `model` in it to its place in the cache.

    Args:
        made: The folder, on the same disk.
        lock: What the model is.
        handle: Its handle.

    Returns:
        The model in its place: this one, or another process's, if that came first.
    """
    (made / _HANDLE_FILE).write_text(lock.to_json(), encoding="utf-8")
    entry = entry_of(handle)
    if entry.exists() and kept_model(handle) is None:
        remove(entry)
    put(made, entry)
    return entry / "model"


def kept_addresses() -> list[str]:
    """Returns where what is in the cache came from, without reading the models."""
    found = []
    for path in sorted(cache_folder().glob(f"models/*/{_HANDLE_FILE}")):
        try:
            found.append(str(json.loads(path.read_text("utf-8"))["address"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return sorted(found)
