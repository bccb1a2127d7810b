"""Encodes plain Python values as JSON and separate arrays, and decodes them.

Plain values are numbers, strings, bools, `None`, NumPy arrays and scalars, and lists,
tuples and dicts of these. Instances of subclasses are not plain.

Tested in tests/training/checkpoints/test_checkpoint_files.py.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_MAX_DEPTH = 30  # levels of lists and dicts, of which one may contain itself


class NotPlainError(TypeError):
    """A value that is not plain."""


def encode(value: Any, store: Callable[[np.ndarray], str], *, depth: int = 0) -> Any:
    """Encodes a plain value as JSON; tuples, NaN and integer keys are preserved.

    Args:
        value: The plain value.
        store: Stores an array, and returns a name for it.
        depth: The number of lists and dicts around the value.

    Returns:
        The JSON value. A JSON object in it has one key, which names the Python type.

    Raises:
        NotPlainError: The value is not plain.
    """
    inner = {"store": store, "depth": depth + 1}
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray | np.generic) and is_storable(value.dtype):
        key = "array" if isinstance(value, np.ndarray) else "scalar"
        return {key: store(np.asarray(value))}
    if depth > _MAX_DEPTH or kind not in (list, tuple, dict):
        raise NotPlainError(f"{kind.__name__} is not a plain value.")
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {k: encode(v, **inner) for k, v in value.items()}}
    if kind is dict:
        pairs = value.items()
        return {"items": [[encode(k, **inner), encode(v, **inner)] for k, v in pairs]}
    encoded = [encode(item, **inner) for item in value]
    return encoded if kind is list else {"tuple": encoded}


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Decodes a value that `encode` returned, with the stored arrays by name."""
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "float":
        return float(inner)
    if kind in ("array", "scalar"):
        return arrays[inner] if kind == "array" else arrays[inner][()]
    if kind == "dict":
        return {key: decode(item, arrays) for key, item in inner.items()}
    if kind == "items":
        return {decode(k, arrays): decode(v, arrays) for k, v in inner}
    return tuple(decode(item, arrays) for item in inner)


def is_storable(dtype: np.dtype) -> bool:
    """Returns whether bytes, shape and dtype name suffice to restore such an array."""
    # `isbuiltin` is 2 for bfloat16 and other extension types, whose kind is "V".
    return dtype.kind in "biufcSUmM" or dtype.isbuiltin == 2
