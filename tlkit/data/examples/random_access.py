"""Any example of a split by its place, so that some can be picked without the rest.

One example as a record of a TFRecord file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from ...progress import progress
from .example_order import Order
from .tf_data import deterministic, parallel_map, untuned

_ATTRIBUTE = "_tlkit_access"
_HELD_BYTES = 2**30  # of examples that are held in memory to be picked from
_CHUNK = 1024
_TOGETHER = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Access:
    """How the examples of a dataset are read by their places.

    Attributes:
        labels: int32 `[n]`, the class of each example, in the order of the dataset.
        read: Gives a dataset of the examples at some places (int64 `[m]`), in their
            order; a place may come more than once.
        in_order: Whether to read them one after another is much faster than by place,
            as from files with many examples each.
        shuffled: Reads all examples of an epoch for `in_order` in an order that
            changes with it, or a worker's share of them: see `ShardFiles.shuffled`.
        check: Raises a `DataError` that names the file that is damaged, if one is.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], tf.data.Dataset]
    in_order: bool = False
    shuffled: Callable[..., tf.data.Dataset] | None = None
    check: Callable[[], None] | None = None


def attach_access(dataset: tf.data.Dataset, access: Access) -> tf.data.Dataset:
    """Remembers for a dataset how its examples are read by their places.

    What is made of the dataset, with `map` or `take`, does not inherit it.

    Args:
        dataset: Elements `(raw, label)`, not batched.
        access: As many examples, in the same order.

    Returns:
        The same dataset.
    """
    setattr(dataset, _ATTRIBUTE, access)
    return dataset


def access_of(dataset: tf.data.Dataset) -> Access | None:
    """How the examples of a dataset are read by their places, if that is known."""
    return getattr(dataset, _ATTRIBUTE, None)


def map_with_access(
    dataset: tf.data.Dataset, function: Callable, index: np.ndarray | None = None
) -> tf.data.Dataset:
    """Applies a function to every example, and keeps the access to them.

    Args:
        dataset: Elements `(raw, label)`, not batched.
        function: Takes the parts of an element.
        index: The new label of each old one, if the function gives others.
    """
    access = access_of(dataset)
    dataset = deterministic(parallel_map(dataset, function))
    if access is None:
        return dataset

    def mapped(read: Callable[..., tf.data.Dataset] | None):
        if read is None:
            return None
        return lambda *args, **options: deterministic(
            parallel_map(read(*args, **options), function)
        )

    return attach_access(
        dataset,
        dataclasses.replace(
            access,
            labels=access.labels if index is None else index[access.labels],
            read=mapped(access.read),
            shuffled=mapped(access.shuffled),
        ),
    )


def labels_of(dataset: tf.data.Dataset, *, verbose: int = 1) -> np.ndarray:
    """int32 `[n]`, the class of each example; reads all of them if it must."""
    access = access_of(dataset)
    if access is not None:
        return access.labels
    only = parallel_map(dataset, lambda raw, label: label)
    parts = _shown(only.batch(_CHUNK), "reading labels", verbose)
    return np.concatenate([np.zeros(0, np.int32), *parts])


def pick(
    dataset: tf.data.Dataset, places: np.ndarray, *, verbose: int = 1
) -> tf.data.Dataset:
    """Gives the examples at some places, in their order.

    Where a dataset does not know how to read them by place, those that are wanted are
    read once and held in memory, as they are: pictures encoded.

    Args:
        dataset: Elements `(raw, label)`, not batched.
        places: int64 `[m]`; a place may come more than once.
        verbose: 1 shows the progress of reading them, 0 is silent.

    Returns:
        A dataset of `m` examples, which can be picked from in turn.

    Raises:
        DataError: What would have to be held takes more than 1 GiB.
    """
    access = access_of(dataset)
    if access is None:
        wanted, places = np.unique(places, return_inverse=True)
        access = _hold(dataset, wanted, verbose)
    return _picked(access, places)


def _picked(access: Access, places: np.ndarray) -> tf.data.Dataset:
    places = np.asarray(places, np.int64)
    return attach_access(
        access.read(places),
        Access(
            access.labels[places],
            lambda inner: access.read(places[inner]),
            in_order=access.in_order,
            check=access.check,
        ),
    )


def read_order(access: Access, chosen: Order, *, marked: bool) -> tf.data.Dataset:
    """The examples of an order one by one, and nothing of the others is read.

    Args:
        access: How they are read.
        chosen: The order, such as an epoch's, or a worker's share of it.
        marked: Whether elements have one more part, float32: 0 for an example that only
            fills up, and 1 for the others.
    """
    places = chosen.rows.ravel()
    there = places >= 0
    dataset = access.read(places[there])
    if not marked:
        return dataset
    present = tf.data.Dataset.from_tensor_slices(chosen.present.ravel()[there])
    return tf.data.Dataset.zip(dataset, present).map(lambda parts, one: (*parts, one))


def tensor_access(
    raws: tf.Tensor | np.ndarray | list,
    labels: np.ndarray | list,
    finish: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Access:
    """Access to what is in memory.

    Args:
        raws: `[n, …]` numbers, or `n` strings.
        labels: `[n]` integers.
        finish: Turns one of the raw values into what the dataset has, such as a path
            into the contents of the file.
    """
    # On a machine with a GPU the whole array would be copied to it otherwise.
    with tf.device("CPU:0"):
        raws, labels = tf.convert_to_tensor(raws), np.asarray(labels, np.int32)

    def read(places: np.ndarray) -> tf.data.Dataset:
        def one(place, label):
            raw = raws[place]
            return (raw if finish is None else finish(raw)), label

        with tf.device("CPU:0"):
            dataset = tf.data.Dataset.from_tensor_slices((places, labels[places]))
        return deterministic(parallel_map(dataset, one))

    return Access(labels, read)


def _hold(dataset: tf.data.Dataset, wanted: np.ndarray, verbose: int) -> Access:
    """Reads the examples at some sorted places into memory."""
    spec = raw_spec(dataset)
    chosen = np.zeros(int(wanted.max(initial=-1)) + 1, bool)
    chosen[wanted] = True
    flags = tf.data.Dataset.from_tensor_slices(chosen)
    pairs = tf.data.Dataset.zip(dataset, flags)
    pairs = pairs.filter(lambda example, flag: flag)
    pairs = pairs.map(lambda example, flag: (to_bytes(example[0]), example[1]))
    total = -(-len(wanted) // _TOGETHER)
    raws, labels, size = [], [], 0
    chunks = pairs.batch(_TOGETHER).prefetch(1)
    for some, their in _shown(chunks, "reading examples", verbose, total):
        raws += some.tolist()
        labels += their.tolist()
        size += sum(map(len, raws[-len(some) :]))
        if size > _HELD_BYTES:
            raise DataError(
                "The examples would be held in memory, and take more than "
                f"{_HELD_BYTES / 2**30:g} GiB: this dataset cannot be read by place. "
                "Write it into shards first, which can. Type: splits = "
                'tlkit.data.tfrecords(tlkit.data.write_shards(splits, "shards"))'
            )
    if len(raws) != len(wanted):
        raise DataError(
            f"The dataset has {len(raws):,} of the {len(wanted):,} examples that it "
            "had when its labels were read: its order or its length changes."
        )
    contents = np.array(raws, object) if raws else np.zeros(0, "S1")
    return tensor_access(contents, labels, lambda raw: from_bytes(raw, spec))


def _shown(
    dataset: tf.data.Dataset, what: str, verbose: int, total: int | None = None
) -> Iterator[Any]:
    """Goes through a dataset, and shows how far it is."""
    if total is None:
        total = max(1, int(dataset.cardinality()))
    items = untuned(dataset).as_numpy_iterator()
    return progress(items, total=total, what=what, verbose=verbose)


# === Records ===


RAW, LABEL = "raw", "label"
# Around the contents: their length (8 bytes), its checksum (4) and theirs (4).
FRAME = 16
_FEATURES = {
    RAW: tf.io.FixedLenFeature([], tf.string),
    LABEL: tf.io.FixedLenFeature([], tf.int64),
}


def raw_spec(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """What the raw values of a split are.

    Raises:
        DataError: It is not one of `Splits`: batched, or with other parts.
    """
    spec = dataset.element_spec
    if isinstance(spec, tuple) and len(spec) == 2:
        raw, label = spec
        whole = isinstance(label, tf.TensorSpec) and label.dtype.is_integer
        if isinstance(raw, tf.TensorSpec) and whole and label.shape.rank == 0:
            return raw
    raise DataError(
        "The elements of a split must be pairs (raw, label) of a tensor and of an "
        f"integer, not batched, as those of tlkit.data.Splits are. They are: {spec}."
    )


def is_plain(spec: tf.TensorSpec) -> bool:
    """Whether raw values are bytes as they are: encoded pictures, or texts."""
    return spec.dtype == tf.string and spec.shape.rank == 0


def to_bytes(raw: tf.Tensor) -> tf.Tensor:
    """A raw value as a scalar string."""
    return raw if is_plain(raw) else tf.io.serialize_tensor(raw)


def from_bytes(contents: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """The raw value that `to_bytes` made a string of."""
    if is_plain(spec):
        return contents
    return tf.ensure_shape(tf.io.parse_tensor(contents, spec.dtype), spec.shape)


def serialize(raw: bytes, label: int) -> bytes:
    """A `tf.train.Example` with the features `raw` and `label`."""
    features = {
        RAW: tf.train.Feature(bytes_list=tf.train.BytesList(value=[raw])),
        LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


def parse(record: tf.Tensor, spec: tf.TensorSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """The raw value and the int32 label of what `serialize` made."""
    features = tf.io.parse_single_example(record, _FEATURES)
    return from_bytes(features[RAW], spec), tf.cast(features[LABEL], tf.int32)
