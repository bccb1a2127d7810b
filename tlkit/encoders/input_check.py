"""Checks what an encoder is given against what its functions take."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import EncoderError


def checked_inputs(specs: Any, inputs: Any, *, name: str) -> list[Any]:
    """The inputs flattened, once their structure, dtypes and shapes are right.

    Args:
        specs: Nest of `tf.TensorSpec`: what is taken.
        inputs: Nest of tensors, symbolic ones included.
        name: Name of the encoder, for messages.

    Returns:
        The inputs in the flattened order, not yet cast.

    Raises:
        EncoderError: They do not fit; the text says what is taken and what came.
    """
    try:
        tf.nest.assert_same_structure(specs, inputs)
    except (TypeError, ValueError) as error:
        raise EncoderError(_refused(specs, inputs, name)) from error
    flat = tf.nest.flatten(inputs)
    for spec, tensor in zip(tf.nest.flatten(specs), flat, strict=True):
        given, wanted = tf.as_dtype(tensor.dtype), spec.dtype
        if not _fits(given, wanted) or not spec.shape.is_compatible_with(tensor.shape):
            raise EncoderError(_refused(specs, inputs, name))
    return flat


def cast_inputs(specs: Any, inputs: Any) -> list[tf.Tensor]:
    """The inputs flattened, as the dtypes that are taken.

    Args:
        specs: Nest of `tf.TensorSpec`: what is taken.
        inputs: Nest of tensors of the same structure.
    """
    pairs = zip(tf.nest.flatten(inputs), tf.nest.flatten(specs), strict=True)
    return [tf.cast(tensor, spec.dtype) for tensor, spec in pairs]


def _fits(given: tf.DType, wanted: tf.DType) -> bool:
    """Whether a cast loses nothing but precision."""
    if given == wanted:
        return True
    numbers = given.is_integer or given.is_bool or given.is_floating
    if wanted.is_floating:
        return numbers
    return wanted.is_integer and (given.is_integer or given.is_bool)


def _refused(specs: Any, inputs: Any, name: str) -> str:
    return (
        f"The encoder {name!r} takes {describe(specs)}. Received: {describe(inputs)}. "
        "Give it that shape and dtype; tlkit.inspect(encoder) shows them again."
    )


def describe(nest: Any) -> str:
    """A nest of specs or tensors in words, such as `float32 [?, 224, 224, 3]`."""
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
