"""The lock: where a folder came from, and the SHA-256 of every file in it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ...errors import SourceError
from ...files import damages, describe_files

LOCK_FILE = "tlkit.lock"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Lock:
    """What was fetched, from where, and how it can be known again.

    Attributes:
        handle: The source as it was typed.
        address: Where it led: an address, or the path of a folder or an archive.
        time: When it was fetched, in ISO 8601, UTC.
        licence: SPDX identifier, or `""` where not known.
        files: `size` in bytes and `sha256` of every file, by its path inside.
        archive: The same of the archive that they came in; empty where they came one
            by one.
    """

    handle: str
    address: str
    time: str
    licence: str
    files: Mapping[str, Mapping[str, Any]]
    archive: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(facts["size"] for facts in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 over all that the lock says, so that its own damage is noticed."""
        text = json.dumps(self._facts(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def to_json(self) -> str:
        """Returns the lock as a JSON object, one file a line."""
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
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is of a later format, or not a lock, or damaged.
        """
        facts = json.loads(text)
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise ValueError(f"it is not a lock of format {_FORMAT}")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in facts]
        if missing:
            raise ValueError(f"it does not say {missing[0]}")
        lock = cls(**{name: facts[name] for name in names})
        if not all(facts.keys() >= {"size", "sha256"} for facts in lock.files.values()):
            raise ValueError("it does not say what each file is")
        # Its own digest is in there, too.
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
    """Makes the lock of a folder as it stands, without writing it.

    Args:
        folder: The folder.
        handle: The source as it was typed.
        address: Where it led.
        licence: SPDX identifier, or `""`.
        archive: `size` and `sha256` of the archive that it came in, if it did.
        time: When it was fetched; now if `None`.
        outside: Whether it will stand outside the folder. A lock inside is then a file
            like any other, and does not count otherwise.
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
    """Puts a lock into its folder, beside first and then by a rename."""
    beside = folder / f".{LOCK_FILE}"
    beside.write_text(lock.to_json(), encoding="utf-8")
    os.replace(beside, folder / LOCK_FILE)


def check_lock(folder: pathlib.Path) -> Lock | None:
    """Compares a folder with its lock.

    Every file is read, at some 1 GB/s, once in a process.

    Args:
        folder: The folder.

    Returns:
        The lock, or `None` where the folder has none.

    Raises:
        SourceError: A file is missing, was changed or came in since, or the lock
            itself is damaged; says which, and what to do.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        return None
    try:
        lock = Lock.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SourceError(
            f"The lock {path} is damaged ({error}), so nothing says whether the files "
            "beside it are those that were fetched. Fetch the folder again: "
            "tlkit fetch SOURCE DIRECTORY"
        ) from error
    wrong = damages(folder, lock.files, leave_out=(LOCK_FILE,), key=lock.digest)
    if wrong:
        raise SourceError(
            f"The folder {folder} is not what its {LOCK_FILE} says was fetched from "
            f"{lock.address}. {_listed(wrong)}. Fetch it again: tlkit fetch "
            f"{lock.handle} DIRECTORY. If it was changed on purpose, remove {path}"
        )
    return lock


def _listed(wrong: list[str]) -> str:
    more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
    text = "; ".join(wrong[:8]) + more
    return text[0].upper() + text[1:]
