"""What can be said of the data without reading all of it.

What can be said of a model, an optimizer and a loss, in plain values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...encoders import Encoder
from ..feeds.feed import Feed
from .variable_names import stable_names

_ROWS = 16  # examples of a batch whose numbers are kept
_TOLERANCE = 1e-3  # pictures are resized a little differently on another processor


def data_facts(feed: Feed, *, batch_size: int, weights: bool = True) -> dict[str, Any]:
    """What makes the data this one.

    The content is known from two batches: the first one, and the first one of a
    shuffled epoch, which comes from everywhere. A dataset that gives something else
    each time is known by its form alone.

    Args:
        feed: The examples.
        batch_size: Examples in a batch.
        weights: Whether the weights of the examples belong to it.

    Returns:
        Numbers, dtypes and shapes, and what the two batches come down to.
    """
    spec = feed.batches(None).element_spec
    return {
        "examples": feed.examples,
        "batches": feed.steps,
        "batch size": batch_size,
        "inputs": [_form(leaf) for leaf in tf.nest.flatten(spec[0])],
        "labels": [_form(leaf) for leaf in tf.nest.flatten(spec[1])],
        "content": _content(feed, weights),
    }


def data_differences(
    saved: dict[str, Any], now: dict[str, Any], *, same_order: bool
) -> list[str]:
    """Sentences that say in what the data differs.

    Args:
        saved: What `data_facts` gave for a checkpoint.
        now: What it gives now.
        same_order: Whether both shuffle with the same seed.
    """
    found = [
        f"data: {key} was {saved[key]}, now {now[key]}"
        for key in ("examples", "batches", "batch size")
        if saved[key] != now[key]
    ]
    for key in ("inputs", "labels"):
        if not _forms_fit(saved[key], now[key]):
            found.append(f"data: {key} were {_said(saved[key])}, now {_said(now[key])}")
    if found:
        return found
    pairs = list(zip(saved["content"], now["content"], strict=False))
    pairs = pairs if same_order else pairs[:1]
    names = " and ".join(sorted(set().union(*(_unlike(*pair) for pair in pairs))))
    return [f"data: the {names} of some examples are others"] if names else []


def _form(spec: tf.TensorSpec) -> dict[str, Any]:
    known = spec.shape.rank is not None
    return {"dtype": spec.dtype.name, "shape": list(spec.shape) if known else None}


def _forms_fit(saved: list, now: list) -> bool:
    """Whether they may be the same; a TPU has sizes where a CPU has unknown ones."""
    return len(saved) == len(now) and all(
        a["dtype"] == b["dtype"]
        and tf.TensorShape(a["shape"]).is_compatible_with(tf.TensorShape(b["shape"]))
        for a, b in zip(saved, now, strict=True)
    )


def _said(forms: list) -> str:
    return ", ".join(f"{form['dtype']} {form['shape']}" for form in forms)


def _content(feed: Feed, weights: bool) -> list[dict[str, list]]:
    """What two batches come down to; nothing if the data is another each time."""
    if not feed.repeats:
        return []
    first, again = (_essence(feed.batches(None), weights) for _ in range(2))
    if _unlike(first, again):
        return []
    return [first, _essence(feed.batches(0), weights)]


def _essence(dataset: tf.data.Dataset, weights: bool) -> dict[str, list]:
    names = ("inputs", "labels", "weights")[: 2 + weights]
    for batch in dataset.take(1):
        return {
            name: [_numbers(leaf.numpy()) for leaf in tf.nest.flatten(part)]
            for name, part in zip(names, batch, strict=False)
        }
    return {}


def _numbers(array: np.ndarray) -> str | list[list[float]]:
    """A digest of what is exact; two numbers for each example of what is not.

    They weigh values by their place, so that zeros that fill up a text, to one length
    or to another, make no difference.
    """
    if array.dtype.kind in "OSU":
        return _digest(array.tolist())
    exact = array.dtype.kind in "biu"
    rows = array if exact else array[:_ROWS]
    rows = rows.reshape(len(rows), -1).astype(np.int64 if exact else np.float64)
    places = np.arange(1, rows.shape[1] + 1)
    if exact:
        return _digest((rows @ places).tolist())
    pairs = np.stack([rows @ places, np.abs(rows) @ places], axis=1)
    return [[float(f"{number:.6g}") for number in pair] for pair in pairs.tolist()]


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()


def _unlike(saved: dict[str, list], now: dict[str, list]) -> set[str]:
    """Which of inputs, labels and weights differ."""
    keys = saved.keys() & now.keys()
    return {key for key in keys if not all(map(_alike, saved[key], now[key]))}


def _alike(saved: str | list, now: str | list) -> bool:
    if isinstance(saved, str) or isinstance(now, str) or len(saved) != len(now):
        return saved == now
    (one, size), (other, _) = np.transpose(saved), np.transpose(now)
    near = np.abs(one - other) <= _TOLERANCE * size
    return bool(np.all(near | (np.isnan(one) & np.isnan(other))))


# === Model facts ===

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
