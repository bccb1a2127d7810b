"""Requests that TF Serving sends itself before it answers others.

The first request after a start makes kernels and buffers, and takes many times as long.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

FILE = "tf_serving_warmup_requests"

# Numbers of the fields, from tensorflow_serving/apis: prediction_log.proto,
# predict.proto and model.proto. `tensorflow-serving-api`, which has the messages, is a
# package for clients that brings gRPC along; tests/serving/test_warm_up.py reads the
# file with it.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE = 1, 3
_KEY, _VALUE = 1, 2


def write_warm_up(
    path: pathlib.Path, model: str, requests: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Writes the file of warm-up requests, a TFRecord of `PredictionLog`.

    Args:
        path: The file, `assets.extra/tf_serving_warmup_requests` in an export.
        model: The name of the model.
        requests: The signature and the inputs by name of each; at most 1,000.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(_prediction_log(model, signature, inputs))


def _prediction_log(model: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, a string or a message, as protocol buffers write it."""
    # https://protobuf.dev/programming-guides/encoding: 2 says that a length follows.
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
