"""The lock of a model folder: its source, and the SHA-256 of every file in it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ...errors import SourceError
from ...files import damages, describe_files

LOCK_FILE = "tlkit.lock"
_FORMAT = 1

# The errors that reading a lock raises if it is missing, damaged or not a lock.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True)
class Lock:
    """Describes a fetched model so that changes of its files are detected.

    Attributes:
        handle: The source as the user typed it.
        address: The address, or the path of a folder or archive, that it led to.
        time: When it was fetched, in ISO 8601, UTC.
        licence: SPDX identifier, or `""` if unknown.
        files: `size` in bytes and `sha256` of every file, by its path in the folder.
        archive: `size` and `sha256` of the archive that contained the files; empty if
            there was none.
    """

    handle: str
    address: str
    time: str
    licence: str
    files: Mapping[str, Mapping[str, Any]]
    archive: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(facts["size"] for facts in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the lock's contents, which reveals damage of the lock itself."""
        text = json.dumps(self._facts(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def to_json(self) -> str:
        """Returns the lock as a JSON object, with one line for each file."""
        facts = self._facts() | {"sha256": self.digest}
        del facts["files"]
        lines = [f" {json.dumps(key)}: {json.dumps(facts[key])}," for key in facts]
        files = [
            f"  {json.dumps(name)}: {json.dumps(self.files[name])}"
            for name in sorted(self.files)
        ]
        lines += [' "files": {', ",\n".join(files), " }"]
        return "\n".join(["{", *lines, "}", ""])

    @classmethod
    def from_json(cls, text: str) -> Lock:
        """Returns the lock that `to_json` wrote.

        Raises:
            One of `UNREADABLE`: It is of a later format, not a lock, or damaged.
        """
        facts = json.loads(text)
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise ValueError(f"it is not a lock of format {_FORMAT}")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in facts]
        if missing:
            raise ValueError(f"the field {missing[0]!r} is missing")
        lock = cls(**{name: facts[name] for name in names})
        if not all(facts.keys() >= {"size", "sha256"} for facts in lock.files.values()):
            raise ValueError("a file lacks its size or sha256")
        # This also compares the digest, which is part of the text.
        if lock.to_json() != text:
            raise ValueError("it was changed since it was written")
        return lock

    def _facts(self) -> dict[str, Any]:
        return {"format": _FORMAT, "size": self.size} | dataclasses.asdict(self)


def make_lock(
    folder: pathlib.Path,
    *,
    handle: str,
    address: str,
    licence: str = "",
    archive: Mapping[str, Any] | None = None,
    time: str | None = None,
    outside: bool = False,
) -> Lock:
    """Returns the lock of a folder in its present state; does not write it.

    Args:
        folder: The folder.
        handle: The source as the user typed it.
        address: The address that it led to.
        licence: SPDX identifier, or `""`.
        archive: `size` and `sha256` of the archive that it was in, if any.
        time: When it was fetched; now if `None`.
        outside: Whether the lock will be written outside the folder. A `tlkit.lock`
            inside it is then a file like any other; otherwise it is not listed.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Lock(
        handle=handle,
        address=address,
        time=time or now,
        licence=licence,
        files=describe_files(folder, leave_out=() if outside else (LOCK_FILE,)),
        archive=dict(archive or {}),
    )


def write_lock(folder: pathlib.Path, lock: Lock) -> None:
    """Writes a lock into its folder."""
    (folder / LOCK_FILE).write_text(lock.to_json(), encoding="utf-8")


def check_lock(folder: pathlib.Path) -> Lock | None:
    """Compares a folder with its lock.

    Reads every file, at about 1 GB/s, once in a process.

    Args:
        folder: The folder.

    Returns:
        The lock, or `None` if the folder has none.

    Raises:
        SourceError: A file is missing, changed or new, or the lock is damaged.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        return None
    try:
        lock = Lock.from_json(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise SourceError(
            f"The lock {path} is damaged ({error}), so the files in its folder cannot "
            "be verified. Fetch the folder again: tlkit fetch SOURCE DIRECTORY"
        ) from error
    differences = damages(folder, lock.files, leave_out=(LOCK_FILE,), key=lock.digest)
    if differences:
        raise SourceError(
            f"The folder {folder} differs from its {LOCK_FILE}, which lists the files "
            f"fetched from {lock.address}. {_first(differences)}. Fetch it again: "
            f"tlkit fetch {lock.handle} DIRECTORY. If the change was intended, remove "
            f"{path}"
        )
    return lock


def _first(differences: list[str]) -> str:
    more = f"; and {len(differences) - 8} more" if len(differences) > 8 else ""
    text = "; ".join(differences[:8]) + more
    return text[0].upper() + text[1:]
