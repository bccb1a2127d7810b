"""What goes in, what comes out and what is learned, in a form that JSON can hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Variable:
    """What a variable of an encoder is.

    Args:
        name: Its name in the SavedModel, without the `:0`.
        shape: Its shape.
        dtype: Name of its dtype, such as `"float32"`.
        learnable: Whether the SavedModel says that it may be trained.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    learnable: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


def specs_to_json(specs: Any) -> Any:
    """Writes a nest of `tf.TensorSpec` as lists, dicts and strings."""
    if isinstance(specs, dict):
        items = {key: specs_to_json(value) for key, value in specs.items()}
        return {"dict": items}
    if isinstance(specs, (list, tuple)):
        return {"list": [specs_to_json(value) for value in specs]}
    shape = None if specs.shape.rank is None else list(specs.shape)
    return {"shape": shape, "dtype": specs.dtype.name}


def specs_from_json(value: Any) -> Any:
    """The nest of `tf.TensorSpec` that `specs_to_json` wrote."""
    if "dict" in value:
        return {key: specs_from_json(item) for key, item in value["dict"].items()}
    if "list" in value:
        return [specs_from_json(item) for item in value["list"]]
    return tf.TensorSpec(value["shape"], tf.as_dtype(value["dtype"]))
