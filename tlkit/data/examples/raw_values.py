"""The raw values of examples, and how each becomes one string and back.

Tested in tests/data/shards/test_shards.py.
"""

import tensorflow as tf

from ...errors import DataError


def raw_spec(dataset: tf.data.Dataset) -> tf.TensorSpec:
    """Returns the spec of the raw values of a split.

    Raises:
        DataError: It is not a split of `Splits`: it is batched, or has other parts.
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
    """Returns a raw value as a scalar string; encoded images and texts as they are."""
    return raw if _is_bytes(raw) else tf.io.serialize_tensor(raw)


def from_bytes(contents: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Returns the raw value of which `to_bytes` made a string."""
    if _is_bytes(spec):
        return contents
    return tf.ensure_shape(tf.io.parse_tensor(contents, spec.dtype), spec.shape)


def _is_bytes(spec: tf.TensorSpec | tf.Tensor) -> bool:
    return spec.dtype == tf.string and spec.shape.rank == 0
