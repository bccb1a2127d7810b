"""What can be said of a model, an optimizer and a loss, in plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from ...encoders import Encoder
from .variable_names import stable_names

# What changes from process to process or in training, or says nothing.
_UNSAID = {"name", "trainable", "module", "registered_name", "build_config", "function"}
_LONG = 200  # characters of a value before only its digest is kept
_NOTHING = object()


def model_facts(model: keras.Model) -> dict[str, Any]:
    """What makes a model this one, whatever the values of its weights.

    Args:
        model: The model, built.

    Returns:
        `weights`: dtype and shape by names that hold in every process; `layers`: the
        class of each layer and what it was made with.
    """
    names = stable_names(model.weights)
    return {
        "weights": {
            name: f"{variable.dtype} {list(variable.shape)}"
            for name, variable in zip(names, model.weights, strict=True)
        },
        "layers": [_layer_facts(layer) for layer in _layers(model)],
    }


def optimizer_facts(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The class of an optimizer and what it was made with.

    Its learning rate is left out: the schedule sets it. One that is a schedule of
    Keras's stays.
    """
    config = optimizer.get_config()
    if not isinstance(config.get("learning_rate"), dict):
        config.pop("learning_rate", None)
    return {"class": type(optimizer).__name__, **_facts(config)}


def loss_facts(loss: keras.losses.Loss | Callable | str) -> dict[str, Any]:
    """The class of a loss and what it was made with, or the name of a function."""
    if isinstance(loss, keras.losses.Loss):
        inner = getattr(loss, "function", None)
        kind = _name(inner) if callable(inner) else type(loss).__name__
        return {"class": kind, **_facts(_config(loss))}
    return {"class": loss if isinstance(loss, str) else _name(loss)}


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _layer_facts(layer: keras.layers.Layer) -> dict[str, Any]:
    kind = {"class": type(layer).__name__}
    if isinstance(layer, Encoder):
        blocks = [block.name for block in layer.blocks]
        return kind | {"encoder": layer.details.get("name"), "blocks": blocks}
    return kind | _facts(_config(layer))


def _config(thing) -> Mapping[str, Any]:
    try:
        return thing.get_config()
    except Exception:  # a class of the user's own, which is never saved
        return {}


def _name(function) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _facts(value: Any) -> Any:
    """What of a Keras config is plain, without names and numbers of this process."""
    if isinstance(value, Mapping):
        if str(value.get("class_name", "")).endswith("DTypePolicy"):
            return value["config"].get("name")
        pairs = {str(k): _facts(v) for k, v in value.items() if k not in _UNSAID}
        return {key: fact for key, fact in pairs.items() if fact is not _NOTHING}
    if isinstance(value, list | tuple):
        facts = [_facts(item) for item in value]
        return _shortened([fact for fact in facts if fact is not _NOTHING])
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return _shortened(value)
    return _NOTHING


def _shortened(value: Any) -> Any:
    text = json.dumps(value)
    if len(text) <= _LONG:
        return value
    return f"digest {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
