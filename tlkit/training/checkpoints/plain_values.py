"""Plain Python values as JSON with arrays beside it, and back as they were."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_DEEPEST = 30  # lists in lists; a list that holds itself has no end


class NotPlainError(TypeError):
    """A value that is not made of numbers, texts, lists, dicts and arrays."""


def encode(value: Any, keep: Callable[[np.ndarray], str], *, depth: int = 0) -> Any:
    """What `json.dumps` takes, without loss: tuples, NaN and integer keys come back.

    Args:
        value: Numbers, texts, bools, `None`, NumPy arrays and scalars, and lists,
            tuples and dicts of these. Subclasses of them are not plain.
        keep: Puts an array somewhere and gives the name by which it is found.
        depth: How many lists and dicts it stands in.

    Returns:
        The JSON value. An object in it has one key, which says what it is.

    Raises:
        NotPlainError: It is something else.
    """
    inner = {"keep": keep, "depth": depth + 1}
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray | np.generic) and storable(value.dtype):
        word = "array" if isinstance(value, np.ndarray) else "scalar"
        return {word: keep(np.asarray(value))}
    if depth > _DEEPEST or kind not in (list, tuple, dict):
        raise NotPlainError(f"{kind.__name__} is not a plain value.")
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {k: encode(v, **inner) for k, v in value.items()}}
    if kind is dict:
        pairs = value.items()
        return {"items": [[encode(k, **inner), encode(v, **inner)] for k, v in pairs]}
    encoded = [encode(item, **inner) for item in value]
    return encoded if kind is list else {"tuple": encoded}


def storable(dtype: np.dtype) -> bool:
    """Whether arrays of it are only bytes, a shape and the name of the dtype."""
    # `isbuiltin` is 2 for bfloat16 and its kin, whose kind is that of records.
    return dtype.kind in "biufcSUmM" or dtype.isbuiltin == 2


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `encode` was given.

    Args:
        value: What `encode` gave.
        arrays: The arrays by the names that `keep` gave.
    """
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
