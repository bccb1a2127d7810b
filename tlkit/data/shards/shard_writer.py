"""Writes splits as TFRecord shards: all files, or none.

Tested in tests/data/shards/test_shards.py.
"""

import array
import contextlib
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ...files import atomic_folder, sha256_of, user_path
from ...progress import progress
from ..examples.raw_values import raw_spec, to_bytes
from ..examples.splits import Splits, is_integer
from ..examples.tf_data import parallel_map, untuned
from .records import FRAME, serialize

INDEX = "shards.json"
FORMAT = "tlkit shards"
VERSION = 1
_CHUNK = 16


def write_shards(
    splits: Splits,
    directory: str | os.PathLike[str],
    *,
    shard_size: int = 128 * 2**20,
    verbose: int = 1,
) -> pathlib.Path:
    """Writes a data set into a few large files, which `tlkit.data.tfrecords` reads.

    Shards are read faster than millions of small files, above all over a network. Each
    split becomes files `train-00000-of-00012.tfrecord`, …, of `tf.train.Example`
    records in the order of the split. Their features are `raw` (the bytes of an encoded
    image, a text in UTF-8, or an array by `tf.io.serialize_tensor`) and `label`
    (int64). `shards.json` lists the files with checksums.

    The files are written into a temporary folder, which is renamed at the end. The next
    process that writes there removes the temporary folder of a process that was killed.

    Args:
        splits: The data set.
        directory: A folder that does not exist yet, or is empty.
        shard_size: The maximum bytes of a file; a larger example has its own file.
        verbose: 1 shows the progress, 0 is silent.

    Returns:
        The folder.

    Raises:
        DataError: The folder is not empty or cannot be written, the disk is full, or
            an example cannot be read. Nothing half-written stays.

    Example:

    ```python
    splits = tlkit.data.image_folder("flowers")
    folder = tlkit.data.write_shards(splits, "flowers-shards")
    sorted(folder.iterdir())[0].name  # "shards.json"
    splits = tlkit.data.tfrecords(folder)
    ```
    """
    if not is_integer(shard_size):
        raise DataError(f"shard_size must be 1 byte or more; got {shard_size!r}.")
    final = user_path(directory).absolute()
    _check_free(final)
    datasets = {name: getattr(splits, name) for name in splits.sizes}
    spec = raw_spec(splits.train)
    for name, dataset in datasets.items():
        if raw_spec(dataset) != spec:
            raise DataError(
                f"The {name} split must have raw values like those of the training "
                f"split, {spec}; got {raw_spec(dataset)}."
            )
    index: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": splits.kind,
        "labels": list(splits.labels),
        "raw": {"dtype": spec.dtype.name, "shape": _plain_shape(spec)},
        "splits": {},
    }
    try:
        with atomic_folder(final, sync=True) as folder:
            for name, dataset in datasets.items():
                writer = _ShardWriter(folder, name, int(shard_size))
                _write_split(writer, dataset, name, len(splits.labels), verbose)
                index["splits"][name] = writer.finish()
            index["sha256"] = index_digest(index)
            text = json.dumps(index, indent=1)
            (folder / INDEX).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{final} could not be written: {error.strerror or error}. Nothing of it "
            "was kept. Make room, or name a folder on another disk."
        ) from error
    return final


def index_digest(index: dict[str, Any]) -> str:
    """Computes the SHA-256 of the content of an index, in hexadecimal."""
    content = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _ShardWriter:
    """Writes the records of one split, one file after the other."""

    def __init__(self, folder: pathlib.Path, split: str, shard_size: int):
        self._folder, self._split, self._limit = folder, split, shard_size
        self._file: tf.io.TFRecordWriter | None = None
        self._rows = array.array("q")  # a length and a label for each record
        self._shards: list[dict[str, Any]] = []

    def write(self, record: bytes, label: int) -> None:
        size = len(record) + FRAME
        if self._file is None or self._shards[-1]["bytes"] + size > self._limit:
            self.close()
            self._shards.append({"examples": 0, "bytes": 0})
            self._file = tf.io.TFRecordWriter(str(self._part(len(self._shards) - 1)))
        self._file.write(record)
        self._rows.extend((size, label))
        self._shards[-1]["examples"] += 1
        self._shards[-1]["bytes"] += size

    def close(self) -> None:
        """Closes the current file, and checks that all its bytes are on the disk."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        path, shard = self._part(len(self._shards) - 1), self._shards[-1]
        written = path.stat().st_size
        if written != shard["bytes"]:
            raise OSError(f"only {written:,} of {shard['bytes']:,} bytes were written")
        shard["sha256"] = sha256_of(path)

    def abandon(self) -> None:
        """Closes the current file, if any, and ignores errors: it will be removed."""
        with contextlib.suppress(OSError, tf.errors.OpError):
            if self._file is not None:
                self._file.close()

    def finish(self) -> dict[str, Any]:
        """Gives the files their final names; writes the records' lengths and labels.

        A final name contains the total number of files.

        Returns:
            The split's entry in the index `shards.json`, which the caller writes.
        """
        total = len(self._shards)
        shards = []
        for number, shard in enumerate(self._shards):
            name = f"{self._split}-{number:05}-of-{total:05}.tfrecord"
            os.rename(self._part(number), self._folder / name)
            shards.append({"file": name, **shard})
        rows = np.array(self._rows, "<i8").reshape(-1, 2)
        file = self._folder / f"{self._split}-rows.npy"
        contents = io.BytesIO()  # np.save into a file hides why a write failed
        np.save(contents, rows)
        file.write_bytes(contents.getvalue())
        entry = {"file": file.name, "bytes": file.stat().st_size}
        return {
            "examples": len(rows),
            "rows": {**entry, "sha256": sha256_of(file)},
            "shards": shards,
        }

    def _part(self, number: int) -> pathlib.Path:
        return self._folder / f"{self._split}-{number:05}.part"


def _write_split(
    writer: _ShardWriter,
    dataset: tf.data.Dataset,
    split: str,
    classes: int,
    verbose: int,
) -> None:
    total = max(0, int(dataset.cardinality()))
    examples = progress(
        _read(dataset, split),
        total=total,
        what=f"writing {split} shards",
        verbose=verbose,
    )
    try:
        for raw, label in examples:
            if not 0 <= label < classes:
                raise DataError(
                    f"An example of the {split} split has the label {label}; with "
                    f"{classes} labels, they run from 0 to {classes - 1}."
                )
            writer.write(serialize(raw, label), label)
        writer.close()
    except tf.errors.OpError as error:
        # TensorFlow raises these errors also for a full disk.
        raise OSError(error.message) from error
    finally:
        writer.abandon()


def _read(dataset: tf.data.Dataset, split: str) -> Iterator[tuple[bytes, int]]:
    """Yields the raw values as bytes, with their labels."""
    dataset = parallel_map(dataset, lambda raw, label: (to_bytes(raw), label))
    count = 0
    try:
        # In chunks: one step of Python per example would take most of the time.
        chunks = untuned(dataset.batch(_CHUNK).prefetch(1)).as_numpy_iterator()
        for raws, labels in chunks:
            count += len(labels)
            yield from zip(raws.tolist(), labels.tolist(), strict=True)
    except tf.errors.OpError as error:
        raise DataError(
            f"After example {count:,} of the {split} split, one cannot be read: "
            f"{error.message}"
        ) from error
    if not count:
        raise DataError(f"The {split} split has no examples to write.")


def _check_free(final: pathlib.Path) -> None:
    if not os.path.lexists(final):
        return
    if not final.is_dir():
        raise DataError(f"{final} is a file; shards need a folder of their own.")
    if not any(final.iterdir()):
        return
    if (final / INDEX).exists():
        raise DataError(
            f"{final} holds shards already. To read them, type: "
            f"tlkit.data.tfrecords({str(final)!r}); to write others, name another "
            "folder, or remove this one first."
        )
    raise DataError(
        f"{final} is not empty; shards need a folder of their own. Name another one."
    )


def _plain_shape(spec: tf.TensorSpec) -> list[int | None] | None:
    return None if spec.shape.rank is None else spec.shape.as_list()
