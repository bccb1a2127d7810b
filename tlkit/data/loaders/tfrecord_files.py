"""Loads TFRecord files of any origin."""

import glob
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ...files import user_path
from ...progress import progress
from ..examples.splits import Splits
from ..examples.tf_data import parallel_map, untuned
from ..shards.records import record_length
from ..shards.shard_access import ShardFiles

_Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_CHUNK = 256


def tfrecord_files(
    train: _Files,
    *,
    raw: str,
    label: str,
    labels: Sequence[str],
    kind: str = "image",
    validation: _Files | None = None,
    test: _Files | None = None,
    first_label: int = 0,
    verbose: int = 1,
) -> Splits:
    """Loads TFRecord files of `tf.train.Example` records that others wrote.

    Every file is read once when it is loaded, to find the positions of its examples and
    to check their labels and checksums. To do this only once, write the result with
    `tlkit.data.write_shards`.

    Args:
        train: The training files, in their order: a list of paths, or a pattern such
            as `"imagenet/train-*"`, whose matches are sorted.
        raw: The name of the feature with the example: an encoded image or a text, as
            one string.
        label: The name of the feature with the class: one integer, or one string of
            `labels`.
        labels: The names of the classes by their index.
        kind: `"image"` or `"text"`.
        validation: The files of the validation split, or `None` for no such split.
        test: The files of the test split, or `None` for no such split.
        first_label: The integer of the first class; some data sets count from 1.
        verbose: 1 shows the progress, 0 is silent.

    Returns:
        Splits with the examples in the order of the files.

    Raises:
        DataError: There is no such file, feature or label, or a file is damaged or
            compressed; the message names it.

    Example:

    ```python
    splits = tlkit.data.tfrecord_files(
        "imagenet/train-*", validation="imagenet/validation-*",
        raw="image/encoded", label="image/class/label", labels=names, first_label=1,
    )
    splits.sizes  # {"train": 1281167, "validation": 50000}
    ```
    """
    if kind not in ("image", "text"):
        raise DataError(f'kind must be "image" or "text"; got {kind!r}.')
    labels = tuple(labels)
    arguments = {"train": train, "validation": validation, "test": test}
    paths = {
        split: _find(files, split)
        for split, files in arguments.items()
        if files is not None
    }
    integers = _label_is_integer(paths["train"][0], raw, label)
    names = None if integers else labels
    read = lambda record: _parse(record, raw, label, names, first_label)
    datasets = dict.fromkeys(arguments)
    for split, files in paths.items():
        what = f"reading {split} files"
        shown = progress(files, total=len(files), what=what, verbose=verbose)
        shards = _scan(shown, read, len(labels), first_label if integers else None)
        if not shards.paths:
            raise DataError(f"The files of the {split} split have no records.")
        datasets[split] = shards.examples().dataset()
    return Splits(**datasets, labels=labels, kind=kind)


def _find(files: _Files, split: str) -> list[str]:
    if isinstance(files, str | os.PathLike):
        pattern = os.path.abspath(user_path(files))
        paths = sorted(path for path in glob.glob(pattern) if os.path.isfile(path))
        if not paths:
            raise DataError(f"No file matches {split}={os.fspath(files)!r}: {pattern}")
        return paths
    paths = [os.path.abspath(user_path(path)) for path in files]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing or not paths:
        fault = f"{missing[0]} is no file" if missing else "the list is empty"
        raise DataError(f"Files of the {split} split are missing: {fault}.")
    return paths


def _label_is_integer(path: str, raw: str, label: str) -> bool:
    """Returns whether the label of the first record is an integer, not a string."""
    try:
        first = next(iter(tf.data.TFRecordDataset(path).take(1).as_numpy_iterator()))
        example = tf.train.Example.FromString(first)
    except StopIteration as error:
        raise DataError(f"{path} has no records.") from error
    except Exception as error:
        raise DataError(
            f"{path} is no TFRecord file of tf.train.Example records: "
            f"{getattr(error, 'message', error)}"
        ) from error
    features = example.features.feature
    for name in (raw, label):
        if name not in features:
            names = ", ".join(map(repr, sorted(features)))
            raise DataError(
                f"The records in {path} have no feature {name!r}. They have: {names}."
            )
    return features[label].WhichOneof("kind") == "int64_list"


def _parse(
    record: tf.Tensor, raw: str, label: str, names: tuple[str, ...] | None, first: int
) -> tuple[tf.Tensor, tf.Tensor]:
    dtypes = {raw: tf.string, label: tf.int64 if names is None else tf.string}
    features = tf.io.parse_single_example(
        record, {key: tf.io.FixedLenFeature([], d) for key, d in dtypes.items()}
    )
    if names is None:
        index = features[label] - first
    else:
        # -1 for an unknown name
        matches = tf.where(tf.constant(names) == features[label])[:, 0]
        index = tf.reduce_max(tf.concat([matches, [-1]], 0))
    return features[raw], tf.cast(index, tf.int32)


def _scan(paths, read, classes: int, first: int | None) -> ShardFiles:
    """Reads all files once: finds the positions of their examples and checks them.

    Args:
        paths: The files.
        read: Parses a record into the raw value and the index of the class.
        classes: The number of classes.
        first: The integer of the first class; `None` if labels are names.
    """
    files, lengths, labels = [], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for path in paths:
        file_lengths, file_labels = _scan_file(path, read)
        wrong = (file_labels < 0) | (file_labels >= classes)
        if wrong.any():
            index = int(np.argmax(wrong))
            fault = "a name that labels does not have"
            if first is not None:
                value = file_labels[index] + first
                fault = f"it is {value}, and the first class is {first}"
            raise DataError(
                f"Example {index:,} of {path} has a label that is not one of the "
                f"{classes} labels: {fault}."
            )
        if len(file_labels):
            files.append((path, len(file_labels)))
        lengths.append(file_lengths)
        labels.append(file_labels)
    return ShardFiles(
        paths=tuple(path for path, _ in files),
        counts=np.array([count for _, count in files], np.int64),
        lengths=np.concatenate(lengths),
        labels=np.concatenate(labels),
        parse=read,
    )


def _scan_file(path: str, read) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lengths of a file's records in bytes, and their classes."""
    records = parallel_map(
        tf.data.TFRecordDataset(path),
        lambda record: (record_length(record), read(record)[1]),
    )
    lengths, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    try:
        for chunk in untuned(records.batch(_CHUNK)).as_numpy_iterator():
            lengths.append(chunk[0])
            labels.append(chunk[1])
    except tf.errors.OpError as error:
        done = sum(map(len, labels))
        raise DataError(
            f"{path} cannot be read beyond example {done:,}: {error.message}"
        ) from error
    return np.concatenate(lengths), np.concatenate(labels)
