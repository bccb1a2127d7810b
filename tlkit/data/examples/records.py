"""One example as a record of a TFRecord file."""

from __future__ import annotations

import tensorflow as tf

from ...errors import DataError

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
