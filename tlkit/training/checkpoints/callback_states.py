"""Collects the state of Keras callbacks, and restores it."""

import hashlib
import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from .checkpoint_files import CheckpointWarning
from .plain_values import NotPlainError, encode
from .variable_names import unique_names

# Attributes that are not stored, since Keras sets them anew in each process. It changes
# the sign of `min_delta` to fit `monitor_op`. The last three are TensorBoard's.
_OF_PROCESS = {"model", "_model", "params", "validation_data", "monitor_op"}
_OF_PROCESS |= {"min_delta", "_is_tracing", "_should_trace", "_profiler_started"}


class CallbackStates:
    """The states of a run's callbacks.

    The state of a callback consists of its attributes that are plain values and have
    changed since this object was created. Other attributes, such as the patience of
    `EarlyStopping`, remain as the user set them. A callback with the methods
    `get_state()` and `set_state(state)` defines its state itself, as a plain value.

    Create this before `on_train_begin` is called, with fresh callbacks.

    Args:
        callbacks: The callbacks, not in a `CallbackList`.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]):
        names = unique_names([_name(callback) for callback in callbacks])
        self._callbacks = dict(zip(names, callbacks, strict=True))
        self._initial = {name: _digests(c) for name, c in self._callbacks.items()}

    def append_to_files(self) -> None:
        """Makes `CSVLogger` append to its file; call it before `on_train_begin`."""
        for callback in self._callbacks.values():
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True

    def collect(self) -> dict[str, Any]:
        """Returns the state of each callback, by the callback's name.

        Raises:
            TrainingError: `get_state()` of a callback returns other than plain values.
        """
        return {
            name: self._state_of(name, callback)
            for name, callback in self._callbacks.items()
        }

    def _state_of(self, name: str, callback) -> dict[str, Any]:
        if _has_own_state(callback):
            own = callback.get_state()
            if _digest(own) is None:
                raise TrainingError(
                    f"get_state() of the callback {name} must return plain values "
                    "(numbers, strings, arrays, and lists, tuples and dicts of these). "
                    f"It returned: {own!r}."
                )
            return {"own": own}
        initial, now = self._initial[name], _digests(callback)
        changed = [key for key, digest in now.items() if initial.get(key) != digest]
        arguments = _arguments(callback)
        return {
            "values": {key: _without_tensor(vars(callback)[key]) for key in changed},
            "given": {key: initial.get(key) for key in changed if key in arguments},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restores what `collect` returned, after `on_train_begin` reset callbacks.

        Callbacks are matched by their class, the monitored metric and their order. A
        callback without a saved state starts anew. If the user has changed an argument
        of a callback since, the new value is used.
        """
        for name, state in saved.items():
            callback = self._callbacks.get(name)
            if callback is not None and "own" in state:
                callback.set_state(state["own"])
            elif callback is not None:
                for key, value in state["values"].items():
                    initial = self._initial[name].get(key)
                    if state["given"].get(key, initial) == initial:
                        _set(callback, key, value)
        missing = [
            name
            for name, state in saved.items()
            if name not in self._callbacks and state.get("own", state.get("values"))
        ]
        if missing:
            warnings.warn(
                "The checkpoint contains states of callbacks that are missing now: "
                f"{', '.join(missing)}.",
                CheckpointWarning,
                stacklevel=2,
            )


def _name(callback) -> str:
    monitor = getattr(callback, "monitor", None)
    suffix = f" of {monitor}" if isinstance(monitor, str) else ""
    return type(callback).__name__ + suffix


def _has_own_state(callback) -> bool:
    return all(callable(getattr(callback, n, None)) for n in ("get_state", "set_state"))


def _arguments(callback) -> set[str]:
    """Returns the `__init__` arguments of a callback's class and its base classes."""
    inits = [vars(kind).get("__init__") for kind in type(callback).__mro__]
    signatures = [inspect.signature(init) for init in inits if inspect.isfunction(init)]
    return {name for signature in signatures for name in signature.parameters}


def _digests(callback) -> dict[str, str]:
    """Returns a digest of each attribute of a callback that is a plain value."""
    items = vars(callback).items()
    digests = {key: _digest(value) for key, value in items if key not in _OF_PROCESS}
    return {key: digest for key, digest in digests.items() if digest is not None}


def _digest(value: Any) -> str | None:
    """Returns a digest of a plain value; `None` for other values."""
    digest = hashlib.blake2b(digest_size=16)

    def store(array: np.ndarray) -> str:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return f"{array.dtype} {array.shape}"

    try:
        text = json.dumps(encode(_without_tensor(value), store))
    except NotPlainError:
        return None
    digest.update(text.encode())
    return digest.hexdigest()


def _without_tensor(value: Any) -> Any:
    """Returns the array of an eager tensor, and any other value as it is."""
    variable = isinstance(value, keras.Variable | tf.Variable)
    eager = isinstance(value, tf.Tensor) and hasattr(value, "numpy")
    return value.numpy() if eager and not variable else value


def _set(callback, key: str, value: Any) -> None:
    """Sets an attribute; a list or dict in place, since others may refer to it."""
    current = vars(callback).get(key)
    if type(current) is list and type(value) is list:
        current[:] = value
    elif type(current) is dict and type(value) is dict:
        current.clear()
        current.update(value)
    else:
        setattr(callback, key, value)
