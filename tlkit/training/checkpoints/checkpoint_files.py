"""Writes checkpoints atomically, and reads the newest one that is undamaged.

    <directory>/checkpoints/0000000120/arrays.bin   all arrays, one after the other
                                       state.json   names, shapes and digests of the
                                                    arrays, and all other values

A checkpoint is written to a temporary folder, which is then renamed. A killed process
or a full disk leaves earlier checkpoints unchanged. Digests cover every byte.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import TrainingError
from ...files import atomic_folder, remove
from .plain_values import NotPlainError, decode, encode, is_storable

_FORMAT = 1
_FOLDER, _ARRAYS, _STATE = "checkpoints", "arrays.bin", "state.json"
# A resumed run may use a number again. The existing folder is not replaced: the new one
# gets a version after the number, as in `0000000120-2`.
_NAME = re.compile(r"(\d+)(?:-(\d+))?")
_OPENING = b'{"digest": "'
_BLANK = b"0" * 32


class CheckpointWarning(UserWarning):
    """Warns that a checkpoint is damaged, or that parts of it are not used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        number: Its number.
        arrays: Its arrays by name.
        state: All other values.
        path: Its folder.
    """

    number: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    path: pathlib.Path


# === Writing ===


def write(
    directory: str | os.PathLike,
    number: int,
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    *,
    keep: int,
) -> pathlib.Path:
    """Writes a checkpoint, and then removes checkpoints that are no longer needed.

    It removes all but the last `keep`, and those with a higher number: the run wrote
    them before it was resumed from an earlier checkpoint. Only one run at a time may
    write to a directory.

    Args:
        directory: The run's folder, which is created if it is missing.
        number: The number of the checkpoint, at least 0.
        arrays: Arrays of numbers or bools, of any shape, by name.
        state: Plain values.
        keep: How many checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        TrainingError: The disk is full, or the folder cannot be written to. Earlier
            checkpoints are unchanged.
        NotPlainError: `state` is not plain, or an array holds Python objects.
    """
    root = pathlib.Path(directory) / _FOLDER
    try:
        final = _new_path(root, number)
        with atomic_folder(final, sync=True, only_writer=True) as folder:
            _write_files(folder, arrays, {"number": number, "state": dict(state)})
    except OSError as error:
        raise TrainingError(_cannot_write(root, arrays, error)) from error
    _remove_others(root, final, keep)
    return final


def _write_files(folder: pathlib.Path, arrays: Mapping, content: dict) -> None:
    """Writes `arrays.bin` and `state.json`."""
    inner: dict[str, np.ndarray] = {}

    def store(array: np.ndarray) -> str:
        inner[str(len(inner))] = array
        return str(len(inner) - 1)

    content["state"] = encode(content["state"], store)
    with open(folder / _ARRAYS, "xb") as file:
        for key, group in (("arrays", arrays), ("arrays of state", inner)):
            content[key] = [_write_array(file, *item) for item in group.items()]
    with open(folder / _STATE, "xb") as file:
        file.write(_signed({"format": _FORMAT, **content}))


def _write_array(file, name: str, array: np.ndarray) -> dict[str, Any]:
    array = np.asarray(array)
    if not is_storable(array.dtype):
        raise NotPlainError(f"{name} is an array of {array.dtype}.")
    # A view as bytes, since NumPy has no buffers of bfloat16.
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    file.write(data)
    # `dtype.str` contains the byte order, but for bfloat16 it is only '<V2'.
    dtype = array.dtype.name if array.dtype.isbuiltin == 2 else array.dtype.str
    entry = {"name": name, "dtype": dtype, "shape": list(array.shape)}
    return entry | {"digest": _digest(data)}


def _signed(content: dict) -> bytes:
    """Returns JSON that begins with a digest of itself, with zeros for the digest."""
    text = json.dumps(content, indent=1, allow_nan=False).encode()
    rest = b'",' + text.removeprefix(b"{")
    digest = _digest(_OPENING + _BLANK + rest)
    return _OPENING + digest.encode() + rest


def _digest(data) -> str:
    return hashlib.blake2b(data, digest_size=len(_BLANK) // 2).hexdigest()


def _new_path(root: pathlib.Path, number: int) -> pathlib.Path:
    versions = [version for (n, version), _ in _existing(root) if n == number]
    ending = f"-{max(versions) + 1}" if versions else ""
    return root / f"{number:010d}{ending}"


def _remove_others(root: pathlib.Path, newest: pathlib.Path, keep: int) -> None:
    paths = [path for _, path in _existing(root)]
    position = paths.index(newest)
    for path in paths[: max(position + 1 - keep, 0)] + paths[position + 1 :]:
        with contextlib.suppress(OSError):
            remove(path)


def _cannot_write(root: pathlib.Path, arrays: Mapping, error: OSError) -> str:
    names = ", ".join(path.name for _, path in _existing(root))
    earlier = f"Earlier ones are unchanged: {names}" if names else "There is none yet"
    size = sum(np.asarray(array).nbytes for array in arrays.values()) / 1e6
    return (
        f"A checkpoint of {size:,.1f} MB could not be written to {root}: "
        f"{error.strerror or error}. {earlier}. Free disk space, or make the folder "
        "writable, and type tlkit.fit(…, resume=True) to resume from the last one; or "
        "give another directory."
    )


# === Reading ===


def latest(directory: str | os.PathLike) -> Checkpoint | None:
    """Reads the newest undamaged checkpoint.

    A `CheckpointWarning` names damaged ones that are skipped.

    Args:
        directory: The run's folder.

    Returns:
        The checkpoint, or `None` if there is none.

    Raises:
        TrainingError: There are checkpoints, and all of them are damaged.
    """
    root = pathlib.Path(directory) / _FOLDER
    damaged: list[str] = []
    for (number, _), path in reversed(_existing(root)):
        try:
            checkpoint = _read(path, number)
        except FileNotFoundError as error:
            if path.exists():  # else the run that writes here has just removed it
                missing = pathlib.Path(error.filename).name
                damaged.append(f"{path}: {missing} is missing")
        except (OSError, _DamageError) as error:
            damaged.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        else:
            if damaged:
                warnings.warn(
                    f"Damaged checkpoints are skipped, and {path.name} is used:\n  "
                    + "\n  ".join(damaged),
                    CheckpointWarning,
                    stacklevel=2,
                )
            return checkpoint
    if damaged:
        raise TrainingError(
            "All checkpoints are damaged:\n  " + "\n  ".join(damaged) + "\nRestore one "
            f"from a backup, or delete {root} to start over."
        )
    return None


class _DamageError(Exception):
    """A file of a checkpoint is damaged; the message says how."""


def _existing(root: pathlib.Path) -> list[tuple[tuple[int, int], pathlib.Path]]:
    """Returns number, version and path of all checkpoints, from old to new."""
    paths = root.iterdir() if root.is_dir() else ()
    matches = [(path, _NAME.fullmatch(path.name)) for path in paths]
    return sorted(((int(m[1]), int(m[2] or 1)), path) for path, m in matches if m)


def _read(path: pathlib.Path, number: int) -> Checkpoint:
    content = _checked_content((path / _STATE).read_bytes())
    if content["number"] != number:
        raise _DamageError(f"its number is {content['number']}, not {number}")
    with open(path / _ARRAYS, "rb") as file:
        arrays, inner = (
            {entry["name"]: _read_array(file, entry) for entry in content[key]}
            for key in ("arrays", "arrays of state")
        )
        if file.read(1):
            raise _DamageError(f"{_ARRAYS} is too long")
    return Checkpoint(number, arrays, decode(content["state"], inner), path)


def _checked_content(signed: bytes) -> dict[str, Any]:
    start, end = len(_OPENING), len(_OPENING) + len(_BLANK)
    digest = _digest(_OPENING + _BLANK + signed[end:]).encode()
    if not signed.startswith(_OPENING) or signed[start:end] != digest:
        raise _DamageError(f"{_STATE} has changed")
    content = json.loads(signed)
    if content["format"] != _FORMAT:
        raise _DamageError(
            f"{_STATE} has format {content['format']}, and this tlkit reads {_FORMAT}"
        )
    return content


def _read_array(file, entry: dict[str, Any]) -> np.ndarray:
    array = np.empty(entry["shape"], np.dtype(entry["dtype"]))
    data = array.reshape(-1).view(np.uint8)
    if file.readinto(data) != data.nbytes:
        raise _DamageError(f"{_ARRAYS} is too short")
    if _digest(data) != entry["digest"]:
        raise _DamageError(f"{entry['name']} in {_ARRAYS} has changed")
    return array
