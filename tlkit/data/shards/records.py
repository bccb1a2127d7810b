"""One example as a record of a TFRecord file.

Tested in tests/data/shards/test_shards.py.
"""

import tensorflow as tf

from ..examples.raw_values import from_bytes

# Bytes that a file has for each record besides its contents: the length of the contents
# (8), the checksum of the length (4), and that of the contents (4).
FRAME = 16
_FEATURES = {
    "raw": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def serialize(raw: bytes, label: int) -> bytes:
    """Returns a serialized `tf.train.Example` with the features `raw` and `label`."""
    features = {
        "raw": tf.train.Feature(bytes_list=tf.train.BytesList(value=[raw])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    features = tf.train.Features(feature=features)
    return tf.train.Example(features=features).SerializeToString()


def parse(record: tf.Tensor, spec: tf.TensorSpec) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the raw value and the int32 label of a record that `serialize` made."""
    features = tf.io.parse_single_example(record, _FEATURES)
    return from_bytes(features["raw"], spec), tf.cast(features["label"], tf.int32)


def record_length(contents: tf.Tensor) -> tf.Tensor:
    """Returns how many bytes a record with these contents takes in a file, as int64."""
    return tf.cast(tf.strings.length(contents), tf.int64) + FRAME
