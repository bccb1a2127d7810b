"""The cache of fetched models: `<cache folder>/models/<SHA-256 of the handle>/`.

Each entry holds the folder `model` and the file `handle.json`, which is the model's
lock.

Tested in tests/sources/download/test_download.py.
"""

import hashlib
import json
import pathlib

from ...files import cache_folder, damages, move_into_place, remove
from .lock import UNREADABLE, Lock

_LOCK_FILE = "handle.json"


def entry_path(handle: str) -> pathlib.Path:
    """Returns the folder of a handle's entry, whether it exists or not."""
    key = hashlib.sha256(handle.encode("utf-8")).hexdigest()
    return cache_folder() / "models" / key


def cached_model(handle: str) -> pathlib.Path | None:
    """Returns the folder of a handle's model if it is cached and undamaged.

    Reads every file and compares its SHA-256, once in a process. Entries without
    digests, which earlier versions wrote, are ignored.
    """
    entry = entry_path(handle)
    lock = read_cached_lock(entry / "model")
    if lock is None or damages(entry / "model", lock.files, key=lock.digest):
        return None
    return entry / "model"


def read_cached_lock(model: pathlib.Path) -> Lock | None:
    """Returns the lock of a model folder in the cache; `None` for other folders."""
    try:
        text = (model.parent / _LOCK_FILE).read_text(encoding="utf-8")
        return Lock.from_json(text)
    except UNREADABLE:
        return None


def add_entry(made: pathlib.Path, lock: Lock, handle: str) -> pathlib.Path:
    """Moves a finished folder that holds `model` into the cache.

    Args:
        made: The folder, on the same disk.
        lock: The model's lock.
        handle: The model's handle.

    Returns:
        The model's folder in the cache, which another process may have added first.
    """
    (made / _LOCK_FILE).write_text(lock.to_json(), encoding="utf-8")
    entry = entry_path(handle)
    if entry.exists() and cached_model(handle) is None:
        remove(entry)
    move_into_place(made, entry, first_wins=True)
    return entry / "model"


def cached_addresses() -> list[str]:
    """Returns the addresses of all entries, sorted; does not read the models."""
    addresses = []
    for path in cache_folder().glob(f"models/*/{_LOCK_FILE}"):
        try:
            addresses.append(str(json.loads(path.read_text("utf-8"))["address"]))
        except UNREADABLE:
            continue
    return sorted(addresses)
