"""Reads the shards of `write_shards` as splits.

Tested in tests/data/shards/test_shards.py.
"""

import functools
import io
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ...files import sha256_of, user_path
from ...progress import progress
from ..examples.splits import SPLIT_NAMES, Splits
from .records import parse
from .shard_access import ShardFiles
from .shard_writer import FORMAT, INDEX, VERSION, index_digest

_NAMED = 10  # how many files a message names


def tfrecords(
    directory: str | os.PathLike[str], *, verify: bool = False, verbose: int = 1
) -> Splits:
    """Reads the shards that `tlkit.data.write_shards` wrote.

    This reads the index only, and checks that all files are there and have the right
    size. Examples are read when they are needed. Every record has a checksum that is
    compared when it is read: a damaged one raises `tf.errors.DataLossError` during
    training, which does not name the file. `verify=True` finds it at once.

    Args:
        directory: The folder.
        verify: Whether to compare the checksums of all files, which reads them once.
        verbose: 1 shows the progress of `verify`, 0 is silent.

    Returns:
        Splits of the kind that was written, with the same labels, examples and order.

    Raises:
        DataError: The folder has no shards or shards of another version, or a file
            differs from what was written; the message names it.

    Example:

    ```python
    splits = tlkit.data.tfrecords("flowers-shards")
    splits.sizes  # {"train": 2936, "validation": 367, "test": 367}
    ```
    """
    folder = user_path(directory).absolute()
    index = _read_index(folder)
    splits = {name: index["splits"].get(name) for name in SPLIT_NAMES}
    files = [shard for split in splits.values() if split for shard in _files(split)]
    _check_files(folder, files)
    if verify:
        _check_digests(folder, files, verbose)
    spec = tf.TensorSpec(index["raw"]["shape"], tf.as_dtype(index["raw"]["dtype"]))
    datasets = {
        name: split and _shard_files(folder, split, spec).examples().dataset()
        for name, split in splits.items()
    }
    return Splits(**datasets, labels=tuple(index["labels"]), kind=index["kind"])


def _read_index(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(_no_index(folder)) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Write or copy the shards again."
        ) from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{path} was not written by tlkit.data.write_shards.")
    if index.get("version") != VERSION:
        raise DataError(
            f"The shards in {folder} have version {index.get('version')!r} of the "
            f"format; this version of tlkit reads {VERSION}. Write them again."
        )
    if index.get("sha256") != index_digest(index):
        raise DataError(
            f"{path} does not match its checksum. Write or copy the shards again."
        )
    return index


def _no_index(folder: pathlib.Path) -> str:
    if not folder.is_dir():
        return f"There is no folder {folder}."
    names = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    hint = ""
    if any(".tfrecord" in name for name in names):
        hint = (
            " For TFRecord files that others wrote, type: "
            "tlkit.data.tfrecord_files(train=…, labels=…)"
        )
    return (
        f"{folder} has no {INDEX}, which tlkit.data.write_shards writes; it has: "
        f"{listed or '(nothing)'}.{hint}"
    )


def _files(split: dict[str, Any]) -> list[dict[str, Any]]:
    return [split["rows"], *split["shards"]]


def _check_files(folder: pathlib.Path, files: list[dict[str, Any]]) -> None:
    """Raises a `DataError` that names files that are missing or have a wrong size."""
    wrong = []
    for file in files:
        path, size = folder / file["file"], file["bytes"]
        if not path.is_file():
            wrong.append(f"{path.name} is missing")
        elif path.stat().st_size != size:
            wrong.append(
                f"{path.name} has {path.stat().st_size:,} bytes instead of {size:,}"
            )
    known = {file["file"] for file in files}
    others = sorted(p.name for p in folder.glob("*.tfrecord") if p.name not in known)
    wrong += [f"{name} does not belong to them" for name in others]
    _raise_wrong(folder, wrong)


def _check_digests(
    folder: pathlib.Path, files: Iterable[dict[str, Any]], verbose: int
) -> None:
    """Raises a `DataError` that names files that do not match their checksums."""
    files = list(files)
    wrong = [
        f"{file['file']} does not match its checksum"
        for file in progress(
            files, total=len(files), what="checking shards", verbose=verbose
        )
        if sha256_of(folder / file["file"]) != file["sha256"]
    ]
    _raise_wrong(folder, wrong)


def _raise_wrong(folder: pathlib.Path, wrong: list[str]) -> None:
    if wrong:
        more = len(wrong) - _NAMED
        listed = "; ".join(wrong[:_NAMED]) + (
            f"; and {more:,} more" if more > 0 else ""
        )
        raise DataError(
            f"The shards in {folder} are damaged: {listed}. Write or copy them again."
        )


def _shard_files(
    folder: pathlib.Path, split: dict[str, Any], spec: tf.TensorSpec
) -> ShardFiles:
    shards = split["shards"]
    # Verified in any case: with wrong lengths, every example would be wrong.
    _check_digests(folder, [split["rows"]], 0)
    contents = (folder / split["rows"]["file"]).read_bytes()
    rows = np.load(io.BytesIO(contents), allow_pickle=False)
    return ShardFiles(
        paths=tuple(str(folder / shard["file"]) for shard in shards),
        counts=np.array([shard["examples"] for shard in shards], np.int64),
        lengths=np.ascontiguousarray(rows[:, 0]),
        labels=rows[:, 1].astype(np.int32),
        parse=functools.partial(parse, spec=spec),
    )
