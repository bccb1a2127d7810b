"""Checks the inputs of an encoder against its `tf.TensorSpec`s.

Tested in tests/encoders/test_forms.py.
"""

from typing import Any

import tensorflow as tf

from ..errors import EncoderError


def checked_inputs(specs: Any, inputs: Any, *, name: str) -> list[Any]:
    """Returns the flattened inputs if their structure, dtypes and shapes fit the specs.

    Args:
        specs: The allowed inputs, a nest of `tf.TensorSpec`.
        inputs: The inputs, a nest of tensors, symbolic ones included.
        name: Name of the encoder, for messages.

    Raises:
        EncoderError: The inputs do not fit; the message describes specs and inputs.
    """
    try:
        tf.nest.assert_same_structure(specs, inputs)
    except (TypeError, ValueError) as error:
        raise EncoderError(_mismatch(specs, inputs, name)) from error
    flat = tf.nest.flatten(inputs)
    for spec, tensor in zip(tf.nest.flatten(specs), flat, strict=True):
        castable = _is_castable(tf.as_dtype(tensor.dtype), spec.dtype)
        if not castable or not spec.shape.is_compatible_with(tensor.shape):
            raise EncoderError(_mismatch(specs, inputs, name))
    return flat


def cast_inputs(specs: Any, inputs: Any) -> list[tf.Tensor]:
    """Returns the flattened inputs, cast to the dtypes of the specs.

    Args:
        specs: Nest of `tf.TensorSpec`.
        inputs: Nest of tensors of the same structure.
    """
    pairs = zip(tf.nest.flatten(inputs), tf.nest.flatten(specs), strict=True)
    return [tf.cast(tensor, spec.dtype) for tensor, spec in pairs]


def _is_castable(dtype: tf.DType, to: tf.DType) -> bool:
    """Returns whether a cast is allowed: integer to integer, or any number to float."""
    if dtype == to:
        return True
    whole = dtype.is_integer or dtype.is_bool
    return whole and to.is_integer or (whole or dtype.is_floating) and to.is_floating


def _mismatch(specs: Any, inputs: Any, name: str) -> str:
    return (
        f"The encoder {name!r} takes {describe(specs)}. Received: {describe(inputs)}. "
        "Pass that shape and dtype; tlkit.inspect(encoder) shows them."
    )


def describe(nest: Any) -> str:
    """Describes a nest of specs or tensors, such as `float32 [?, 224, 224, 3]`."""
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in nest.items()) + "}"
    if isinstance(nest, (list, tuple)):
        return "[" + ", ".join(describe(value) for value in nest) + "]"
    if not hasattr(nest, "shape") or not hasattr(nest, "dtype"):
        return type(nest).__name__
    shape, dtype = tf.TensorShape(nest.shape), tf.as_dtype(nest.dtype).name
    if shape.rank is None:
        return f"{dtype} of any shape"
    return f"{dtype} [{', '.join('?' if n is None else str(n) for n in shape)}]"
