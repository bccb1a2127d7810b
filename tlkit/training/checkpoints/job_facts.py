"""Facts about the data, the model, the optimizer and the loss of a job.

All facts are plain values, the same in every process. The name and the computation of a
fact must not change, or older checkpoints could not be resumed.

Tested in tests/training/checkpoints/test_fingerprint.py.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...encoders import Encoder
from ...models.text import TextInputs
from ..feeds.feed import Feed
from .variable_names import stable_names

_ROWS = 16  # examples of a batch whose float values are summarized
_TOLERANCE = 1e-3  # other processors resize images slightly differently

# Keys of a Keras config that differ between processes, change in training, or carry no
# information.
_IGNORED = {"name", "trainable", "module", "registered_name", "build_config"}
_IGNORED |= {"function"}
_LONG = 200  # characters; of a longer value, only the digest is stored
_NOT_PLAIN = object()


# === Data ===


def data_facts(feed: Feed, *, batch_size: int, weights: bool = True) -> dict[str, Any]:
    """Returns the size and the specs of the data, and a sample of its content.

    The sample has two batches: the first one in the order of the data, and the first
    one of a shuffled epoch, which has examples from all over the data. If the data
    differs between two passes, there is no sample.

    Args:
        feed: The training examples.
        batch_size: Examples in a batch.
        weights: Whether the weights of the examples are sampled, too.
    """
    spec = feed.element_spec
    names = ("inputs", "labels", "weights")[: 2 + weights]
    content = []
    if feed.repeats:
        first, again = (_sample(feed.batches(None), names) for _ in range(2))
        if not _unequal(first, again):
            content = [first, _sample(feed.batches(0), names)]
    return {
        "examples": feed.examples,
        "batches": feed.steps,
        "batch size": batch_size,
        "inputs": [_spec_facts(leaf) for leaf in tf.nest.flatten(spec[0])],
        "labels": [_spec_facts(leaf) for leaf in tf.nest.flatten(spec[1])],
        "content": content,
    }


def data_differences(
    saved: dict[str, Any], now: dict[str, Any], *, same_order: bool
) -> list[str]:
    """Returns sentences that name the differences between two `data_facts`.

    Args:
        saved: The facts in a checkpoint.
        now: Those of the present job.
        same_order: Whether both jobs shuffle with the same seed.
    """
    sentences = [
        f"data: {key} was {saved[key]}, now {now[key]}"
        for key in ("examples", "batches", "batch size")
        if saved[key] != now[key]
    ]
    for key in ("inputs", "labels"):
        if not _compatible(saved[key], now[key]):
            before, after = (
                ", ".join(f"{spec['dtype']} {spec['shape']}" for spec in facts[key])
                for facts in (saved, now)
            )
            sentences.append(f"data: {key} were {before}, now {after}")
    if sentences:
        return sentences
    samples = zip(saved["content"], now["content"], strict=False)
    samples = list(samples)[: 2 if same_order else 1]
    names = sorted({name for pair in samples for name in _unequal(*pair)})
    return [f"data: the {' and '.join(names)} of some examples differ"] if names else []


def _spec_facts(spec: tf.TensorSpec) -> dict[str, Any]:
    shape = None if spec.shape.rank is None else list(spec.shape)
    return {"dtype": spec.dtype.name, "shape": shape}


def _compatible(saved: list, now: list) -> bool:
    """Returns whether two lists of specs may describe the same tensors.

    `None` fits any size: on a TPU a batch has a fixed size, on other devices `None`.
    """
    return len(saved) == len(now) and all(
        a["dtype"] == b["dtype"]
        and tf.TensorShape(a["shape"]).is_compatible_with(tf.TensorShape(b["shape"]))
        for a, b in zip(saved, now, strict=True)
    )


def _sample(dataset: tf.data.Dataset, names: tuple[str, ...]) -> dict[str, list]:
    """Summarizes the tensors of the first batch, by inputs, labels and weights."""
    for batch in dataset.take(1):
        return {
            name: [_summary(leaf.numpy()) for leaf in tf.nest.flatten(part)]
            for name, part in zip(names, batch, strict=False)
        }
    return {}


def _summary(array: np.ndarray) -> str | list[list[float]]:
    """Returns a digest of strings or integers, or two sums for each row of floats.

    Numbers are multiplied by their position and summed, so zeros that pad a text have
    no effect. Floats may differ slightly on another machine, so they have no digest.
    """
    if array.dtype.kind in "OSU":
        return _digest(repr(array.tolist()))
    exact = array.dtype.kind in "biu"
    rows = array if exact else array[:_ROWS]
    rows = rows.reshape(len(rows), -1).astype(np.int64 if exact else np.float64)
    positions = np.arange(1, rows.shape[1] + 1)
    if exact:
        return _digest(repr((rows @ positions).tolist()))
    sums = np.stack([rows @ positions, np.abs(rows) @ positions], axis=1)
    return [[float(f"{number:.6g}") for number in pair] for pair in sums.tolist()]


def _unequal(saved: dict[str, list], now: dict[str, list]) -> set[str]:
    """Returns which of inputs, labels and weights differ between two samples."""
    names = saved.keys() & now.keys()
    return {name for name in names if not all(map(_is_close, saved[name], now[name]))}


def _is_close(saved: str | list, now: str | list) -> bool:
    if isinstance(saved, str) or isinstance(now, str) or len(saved) != len(now):
        return saved == now
    (one, size), (other, _) = np.transpose(saved), np.transpose(now)
    close = np.abs(one - other) <= _TOLERANCE * size
    return bool(np.all(close | (np.isnan(one) & np.isnan(other))))


# === Model, optimizer, loss ===


def model_facts(model: keras.Model) -> dict[str, Any]:
    """Returns dtype and shape of a model's weights, and the configs of its layers."""
    names = stable_names(model.weights)
    return {
        "weights": {
            name: f"{variable.dtype} {list(variable.shape)}"
            for name, variable in zip(names, model.weights, strict=True)
        },
        "layers": [_layer_facts(layer) for layer in _layers(model)],
    }


def optimizer_facts(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Returns the class and the config of an optimizer.

    A constant learning rate is left out, since the schedule of phases sets it.
    """
    config = optimizer.get_config()
    if not isinstance(config.get("learning_rate"), dict):
        config.pop("learning_rate", None)
    return {"class": type(optimizer).__name__, **_plain(config)}


def loss_facts(loss: Any) -> dict[str, Any]:
    """Returns the class and the config of a loss, or the name of a function.

    For a nest of losses, the facts of each are in the text under `losses`.
    """
    if keras.tree.is_nested(loss):
        each = keras.tree.map_structure(lambda one: json.dumps(loss_facts(one)), loss)
        return {"class": "several losses", "losses": repr(each)}
    with contextlib.suppress(ValueError):  # a name that only `compile` can resolve
        loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    if isinstance(loss, keras.losses.Loss):
        return {"class": type(loss).__name__, **_plain(_config(loss))}
    return {"class": loss if isinstance(loss, str) else _name(loss)}


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        # `TextInputs` is left out, since the facts of the data show its effect.
        elif not isinstance(layer, (keras.layers.InputLayer, TextInputs)):
            yield layer


def _layer_facts(layer: keras.layers.Layer) -> dict[str, Any]:
    kind = {"class": type(layer).__name__}
    if isinstance(layer, Encoder):
        blocks = [block.name for block in layer.blocks]
        return kind | {"encoder": layer.facts.name, "blocks": blocks}
    return kind | _plain(_config(layer))


def _config(thing) -> Mapping[str, Any]:
    try:
        return thing.get_config()
    except Exception:  # a user's class without a working `get_config`
        return {}


def _name(function) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _plain(value: Any) -> Any:
    """Returns the plain values in a Keras config, without the ignored keys."""
    if isinstance(value, Mapping):
        if str(value.get("class_name", "")).endswith("DTypePolicy"):
            return value["config"].get("name")
        pairs = {str(k): _plain(v) for k, v in value.items() if k not in _IGNORED}
        return {key: plain for key, plain in pairs.items() if plain is not _NOT_PLAIN}
    if isinstance(value, list | tuple):
        value = [one for one in map(_plain, value) if one is not _NOT_PLAIN]
    elif isinstance(value, np.generic):
        value = value.item()
    elif not (value is None or isinstance(value, bool | int | float | str)):
        return _NOT_PLAIN
    text = json.dumps(value)
    return value if len(text) <= _LONG else f"digest {_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
