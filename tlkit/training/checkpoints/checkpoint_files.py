"""Checkpoints on disk: written whole or not at all, and read only if they are whole.

    <directory>/checkpoints/0000000120/arrays.bin   the arrays, one after the other
                                       state.json   what they are, and everything else

A checkpoint is written beside its place and renamed, so that a kill at any moment, or a
full disk, leaves those that are there as they were. Every byte is under a digest.

Plain Python values as JSON with arrays beside it, and back as they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import TrainingError
from ...files import atomic_folder, remove

_FORMAT = 1
_FOLDER, _ARRAYS, _STATE = "checkpoints", "arrays.bin", "state.json"
# The same number again (after a resume) is another take: a folder is never replaced.
_NAME = re.compile(r"(\d+)(?:-(\d+))?")
_OPENING = b'{"digest": "'
_BLANK = b"0" * 32


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, or not all of it could be used."""


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint that was read.

    Attributes:
        number: The number that it was written with.
        arrays: The arrays by their names.
        state: Everything else, as it was given.
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
    """Writes a checkpoint, and removes those that are not needed any more.

    Only when it is in its place, older ones than the last `keep` are removed, those
    with a higher number, which this run has left behind, and what killed writers left.
    One run at a time may write to a directory.

    Args:
        directory: The run's folder; made if it is not there.
        number: 0 or more, such as the number of updates.
        arrays: Arrays of numbers or bools, of any shape, by their names.
        state: Plain values: texts, numbers, arrays, lists, tuples and dicts of these.
        keep: How many to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        TrainingError: It could not be written: the disk is full, or the folder cannot
            be written to. Earlier checkpoints are as they were.
        NotPlainError: `state` holds something else, or an array Python objects.
    """
    root = pathlib.Path(directory) / _FOLDER
    try:
        final = _free_place(root, number)
        with atomic_folder(final, sync=True, only_writer=True) as folder:
            _write_files(folder, arrays, {"number": number, "state": dict(state)})
    except OSError as error:
        raise TrainingError(_cannot_write(root, arrays, error)) from error
    _remove_others(root, final, keep)
    return final


def _write_files(folder: pathlib.Path, arrays: Mapping, content: dict) -> None:
    """Writes both files."""
    inner: dict[str, np.ndarray] = {}

    def keep(array: np.ndarray) -> str:
        inner[str(len(inner))] = array
        return str(len(inner) - 1)

    content["state"] = encode(content["state"], keep)
    with open(folder / _ARRAYS, "xb") as file:
        for key, group in (("arrays", arrays), ("arrays of state", inner)):
            content[key] = [_write_array(file, *item) for item in group.items()]
    with open(folder / _STATE, "xb") as file:
        file.write(_signed({"format": _FORMAT, **content}))


def _write_array(file, name: str, array: np.ndarray) -> dict[str, Any]:
    array = np.asarray(array)
    if not storable(array.dtype):
        raise NotPlainError(f"{name} is an array of {array.dtype}.")
    # As bytes: NumPy gives no buffer of bfloat16.
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    file.write(data)
    # Only its name says what bfloat16 is; only `str` says which byte comes first.
    kind = array.dtype.name if array.dtype.isbuiltin == 2 else array.dtype.str
    entry = {"name": name, "dtype": kind, "shape": list(array.shape)}
    return entry | {"digest": _digest(data)}


def _signed(content: dict) -> bytes:
    """JSON whose first entry is the digest of the file with zeros in its place."""
    text = json.dumps(content, indent=1, allow_nan=False).encode()
    rest = b'",' + text.removeprefix(b"{")
    digest = _digest(_OPENING + _BLANK + rest)
    return _OPENING + digest.encode() + rest


def _digest(data) -> str:
    return hashlib.blake2b(data, digest_size=len(_BLANK) // 2).hexdigest()


def _free_place(root: pathlib.Path, number: int) -> pathlib.Path:
    takes = [take for (found, take), _ in _there(root) if found == number]
    ending = f"-{max(takes) + 1}" if takes else ""
    return root / f"{number:010d}{ending}"


def _remove_others(root: pathlib.Path, newest: pathlib.Path, keep: int) -> None:
    there = _there(root)
    place = [path for _, path in there].index(newest)
    older, later = there[: max(place + 1 - keep, 0)], there[place + 1 :]
    for _, path in older + later:
        with contextlib.suppress(OSError):
            remove(path)


def _cannot_write(root: pathlib.Path, arrays: Mapping, error: OSError) -> str:
    there = ", ".join(path.name for _, path in _there(root))
    kept = f"Earlier ones are as they were: {there}" if there else "No earlier one is"
    size = sum(np.asarray(array).nbytes for array in arrays.values()) / 1e6
    return (
        f"A checkpoint of {size:,.1f} MB could not be written to {root}: "
        f"{error.strerror or error}. {kept} there. Make room, or the folder writable, "
        "and type tlkit.fit(…, resume=True) to go on from the last one; or give "
        "another directory."
    )


# === Reading ===


def latest(directory: str | os.PathLike) -> Saved | None:
    """Reads the newest checkpoint that is whole.

    Damaged ones are passed over, with a `CheckpointWarning` that names them.

    Args:
        directory: The run's folder.

    Returns:
        The checkpoint, or `None` if there is none.

    Raises:
        TrainingError: There are checkpoints, and all of them are damaged.
    """
    root = pathlib.Path(directory) / _FOLDER
    damaged: list[str] = []
    for (number, _), path in reversed(_there(root)):
        try:
            saved = _read(path, number)
        except FileNotFoundError as error:
            if path.exists():  # and not just removed by the run that writes here
                damaged.append(f"{path}: {pathlib.Path(error.filename).name} is gone")
        except (OSError, _DamageError) as error:
            damaged.append(f"{path}: {getattr(error, 'strerror', None) or error}")
        else:
            if damaged:
                warnings.warn(
                    f"Damaged checkpoints are passed over; {path.name} is used "
                    "instead:\n  " + "\n  ".join(damaged),
                    CheckpointWarning,
                    stacklevel=2,
                )
            return saved
    if damaged:
        raise TrainingError(
            "All checkpoints are damaged:\n  " + "\n  ".join(damaged) + "\nBring one "
            f"back from a copy, or delete {root} to begin anew."
        )
    return None


class _DamageError(Exception):
    """Says what is wrong with a file of a checkpoint."""


def _there(root: pathlib.Path) -> list[tuple[tuple[int, int], pathlib.Path]]:
    """The checkpoints, damaged or not, with number and take, from old to new."""
    paths = root.iterdir() if root.is_dir() else ()
    matches = [(path, _NAME.fullmatch(path.name)) for path in paths]
    return sorted(((int(m[1]), int(m[2] or 1)), path) for path, m in matches if m)


def _read(path: pathlib.Path, number: int) -> Saved:
    content = _checked_content((path / _STATE).read_bytes())
    if content["number"] != number:
        raise _DamageError(f"it is number {content['number']} under another name")
    with open(path / _ARRAYS, "rb") as file:
        arrays, inner = (
            {entry["name"]: _read_array(file, entry) for entry in content[key]}
            for key in ("arrays", "arrays of state")
        )
        if file.read(1):
            raise _DamageError(f"{_ARRAYS} is longer than it was")
    return Saved(number, arrays, decode(content["state"], inner), path)


def _checked_content(signed: bytes) -> dict[str, Any]:
    start, end = len(_OPENING), len(_OPENING) + len(_BLANK)
    blank = _OPENING + _BLANK + signed[end:]
    right = signed.startswith(_OPENING) and signed[start:end] == _digest(blank).encode()
    if not right:
        raise _DamageError(f"{_STATE} is not as it was written")
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
        raise _DamageError(f"{_ARRAYS} is shorter than it was")
    if _digest(data) != entry["digest"]:
        raise _DamageError(f"{entry['name']} in {_ARRAYS} is not as it was written")
    return array


# === Plain values ===


_DEEPEST = 30  # lists in lists; a list that holds itself has no end


class NotPlainError(TypeError):
    """A value that is not made of numbers, texts, lists, dicts and arrays."""


def encode(value: Any, keep: Callable[[np.ndarray], str], *, depth: int = 0) -> Any:
    """What `json.dumps` takes, without loss: tuples, NaN and integer keys come back.

    Args:
        value: Numbers, texts, bools, `None`, NumPy arrays and scalars, and lists,
            tuples and dicts of these. Subclasses of them are not plain.
        keep: Puts an array somewhere and gives the name by which it is found.
        depth: How many lists and dicts it stands in.

    Returns:
        The JSON value. An object in it has one key, which says what it is.

    Raises:
        NotPlainError: It is something else.
    """
    inner = {"keep": keep, "depth": depth + 1}
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray | np.generic) and storable(value.dtype):
        word = "array" if isinstance(value, np.ndarray) else "scalar"
        return {word: keep(np.asarray(value))}
    if depth > _DEEPEST or kind not in (list, tuple, dict):
        raise NotPlainError(f"{kind.__name__} is not a plain value.")
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {k: encode(v, **inner) for k, v in value.items()}}
    if kind is dict:
        pairs = value.items()
        return {"items": [[encode(k, **inner), encode(v, **inner)] for k, v in pairs]}
    encoded = [encode(item, **inner) for item in value]
    return encoded if kind is list else {"tuple": encoded}


def storable(dtype: np.dtype) -> bool:
    """Whether arrays of it are only bytes, a shape and the name of the dtype."""
    # `isbuiltin` is 2 for bfloat16 and its kin, whose kind is that of records.
    return dtype.kind in "biufcSUmM" or dtype.isbuiltin == 2


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `encode` was given.

    Args:
        value: What `encode` gave.
        arrays: The arrays by the names that `keep` gave.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "float":
        return float(inner)
    if kind in ("array", "scalar"):
        return arrays[inner] if kind == "array" else arrays[inner][()]
    if kind == "dict":
        return {key: decode(item, arrays) for key, item in inner.items()}
    if kind == "items":
        return {decode(k, arrays): decode(v, arrays) for k, v in inner}
    return tuple(decode(item, arrays) for item in inner)
