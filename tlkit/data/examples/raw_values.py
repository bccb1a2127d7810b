"""Converts raw values of examples to strings, and back.

Tested in tests/data/shards/test_shards.py.
"""

import tensorflow as tf

from ...errors import DataError


def raw_spec(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """Returns the `tf.TensorSpec` of the raw values of a split.

    Raises:
        DataError: The elements are not pairs `(raw, label)`, or they are batched.
    """
    spec = dataset.element_spec
    if isinstance(spec, tuple) and len(spec) == 2:
        raw, label = spec
        is_index = isinstance(label, tf.TensorSpec) and label.dtype.is_integer
        if isinstance(raw, tf.TensorSpec) and is_index and label.shape.rank == 0:
            return raw
    raise DataError(
        "The elements of a split must be pairs (raw, label) of a tensor and of an "
        f"integer, not batched, as those of tlkit.data.Splits are. They are: {spec}."
    )


def to_bytes(raw: tf.Tensor) -> tf.Tensor:
    """Converts a raw value to a scalar string; an image or a text is one already."""
    return raw if _is_bytes(raw) else tf.io.serialize_tensor(raw)


def from_bytes(contents: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Restores the raw value from the string that `to_bytes` returned."""
    if _is_bytes(spec):
        return contents
    return tf.ensure_shape(tf.io.parse_tensor(contents, spec.dtype), spec.shape)


def _is_bytes(spec: tf.TensorSpec | tf.Tensor) -> bool:
    return spec.dtype == tf.string and spec.shape.rank == 0
