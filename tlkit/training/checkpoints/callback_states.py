"""What Keras callbacks have gathered during a run, taken out and put back."""

from __future__ import annotations

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
from .checkpoint_files import CheckpointWarning, NotPlainError, encode
from .variable_names import told_apart

# Set by Keras for a run. `min_delta` changes its sign when `monitor_op` is found, so
# the two go together. TensorBoard's tell of a profiler that runs in this process.
_OWNED = {"model", "_model", "params", "validation_data", "monitor_op", "min_delta"}
_OWNED |= {"_is_tracing", "_should_trace", "_profiler_started"}


class CallbackStates:
    """The callbacks of a run, with what they were when it began.

    What belongs to the run are the plain values (numbers, texts, arrays, and lists,
    tuples and dicts of these) among a callback's attributes that have changed since
    then. What has not, such as the patience of `EarlyStopping`, is the user's and
    stays as it is typed. A callback with `get_state()` and `set_state(state)` of its
    own says itself what belongs to the run; its state must be a plain value.

    Make this before `on_train_begin` is called, with fresh callbacks.

    Args:
        callbacks: The callbacks, not in a `CallbackList`.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]):
        names = told_apart([_name(callback) for callback in callbacks])
        self._callbacks = dict(zip(names, callbacks, strict=True))
        self._first = {name: _marks(c) for name, c in self._callbacks.items()}

    def append_to_files(self) -> None:
        """Has those that write a file go on with it; before `on_train_begin`."""
        for callback in self._callbacks.values():
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True

    def take(self) -> dict[str, Any]:
        """What they have gathered, as plain values.

        Raises:
            TrainingError: What a callback's `get_state` gives is not plain.
        """
        return {
            name: self._take_one(name, callback)
            for name, callback in self._callbacks.items()
        }

    def _take_one(self, name: str, callback) -> dict[str, Any]:
        if _speaks_for_itself(callback):
            own = callback.get_state()
            if _mark(own) is None:
                raise TrainingError(
                    f"get_state() of the callback {name} must give plain values "
                    "(numbers, texts, arrays, and lists, tuples and dicts of these). "
                    f"It gave: {own!r}."
                )
            return {"own": own}
        first, now = self._first[name], _marks(callback)
        moved = [key for key, mark in now.items() if first.get(key) != mark]
        return {
            "values": {key: _tensor_free(vars(callback)[key]) for key in moved},
            "given": {key: first.get(key) for key in moved if key in _typed(callback)},
        }

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Puts back what `take` gave; after `on_train_begin`, which clears it.

        Callbacks are told by their class, what they monitor, and their order. New ones
        begin anew. An argument that is typed differently than when the run began
        stays as it is typed.

        Args:
            saved: What `take` gave, perhaps in another process.
        """
        for name, state in saved.items():
            callback = self._callbacks.get(name)
            if callback is not None and "own" in state:
                callback.set_state(state["own"])
            elif callback is not None:
                for key, value in state["values"].items():
                    first = self._first[name].get(key)
                    if state["given"].get(key, first) == first:
                        _set(callback, key, value)
        gone = [name for name in saved if name not in self._callbacks]
        gone = [name for name in gone if saved[name].get("own", saved[name]["values"])]
        if gone:
            warnings.warn(
                "The checkpoint also holds what these callbacks had gathered, which "
                f"are not there any more: {', '.join(gone)}.",
                CheckpointWarning,
                stacklevel=2,
            )


def _name(callback) -> str:
    monitor = getattr(callback, "monitor", None)
    what = f" of {monitor}" if isinstance(monitor, str) else ""
    return type(callback).__name__ + what


def _speaks_for_itself(callback) -> bool:
    return all(callable(getattr(callback, n, None)) for n in ("get_state", "set_state"))


def _typed(callback) -> set[str]:
    """Names of the arguments that its class, and those above it, are made with."""
    made = [vars(kind).get("__init__") for kind in type(callback).__mro__]
    signatures = [inspect.signature(init) for init in made if inspect.isfunction(init)]
    return {name for signature in signatures for name in signature.parameters}


def _marks(callback) -> dict[str, str]:
    """Digests of the plain values among the attributes."""
    marks = {k: _mark(v) for k, v in vars(callback).items() if k not in _OWNED}
    return {key: mark for key, mark in marks.items() if mark is not None}


def _mark(value: Any) -> str | None:
    """A digest of a plain value; `None` for others."""
    digest = hashlib.blake2b(digest_size=16)

    def keep(array: np.ndarray) -> str:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return f"{array.dtype} {array.shape}"

    try:
        text = json.dumps(encode(_tensor_free(value), keep))
    except NotPlainError:
        return None
    digest.update(text.encode())
    return digest.hexdigest()


def _tensor_free(value: Any) -> Any:
    variable = isinstance(value, keras.Variable | tf.Variable)
    known = isinstance(value, tf.Tensor) and hasattr(value, "numpy")  # not in a graph
    return value.numpy() if known and not variable else value


def _set(callback, key: str, value: Any) -> None:
    """Sets an attribute; lists and dicts in place, since others may hold them."""
    there = vars(callback).get(key)
    if type(there) is list and type(value) is list:
        there[:] = value
    elif type(there) is dict and type(value) is dict:
        there.clear()
        there.update(value)
    else:
        setattr(callback, key, value)
