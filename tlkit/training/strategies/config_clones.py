"""Clones Keras objects from their configs, within the same process.

Tested in tests/training/strategies/test_scope_copies.py.
"""

import contextlib
import inspect
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from ...errors import TrainingError
from .layer_tree import all_layers


def clone_from_config(
    original: keras.layers.Layer | keras.optimizers.Optimizer | keras.metrics.Metric,
) -> Any:
    """Returns a new model, optimizer or metric with the config of another one.

    Custom classes and functions, also lambdas, need not be registered.

    Args:
        original: The object. The clone of a compiled model is not compiled; that of a
            built one is built, if Keras can do so.

    Raises:
        TrainingError: A model inside has no `get_config`.
        Exception: Any error of Keras or of a user's class.
    """
    is_layer = isinstance(original, keras.layers.Layer)
    objects = all_layers(original) if is_layer else [original]
    for one in objects:
        _check_config(one)
    with _unregistered_objects(objects), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model '.*' had a build config")
        config = keras.saving.serialize_keras_object(original)
        # With it, Keras would create an optimizer and its slots, which nobody needs.
        config.pop("compile_config", None)
        return keras.saving.deserialize_keras_object(config)


def _check_config(layer: Any) -> None:
    """Rejects a model without a `get_config` of its own.

    Keras records the arguments of layers, but not of models: the clone of a model would
    get the default arguments, whatever was given (Keras 3.13 to 3.15).
    """
    if not isinstance(layer, keras.Model):
        return
    if type(layer).get_config is not keras.layers.Layer.get_config:
        return
    parameters = list(inspect.signature(type(layer).__init__).parameters.values())[1:]
    known = {"name", "dtype", "trainable"}
    if [p for p in parameters if p.name not in known and p.kind != p.VAR_KEYWORD]:
        raise TrainingError(f"the class {type(layer).__name__!r} has no get_config.")


@contextlib.contextmanager
def _unregistered_objects(objects: Sequence[Any]) -> Iterator[None]:
    """Makes configs refer, in a context, to the classes and functions themselves.

    Keras would look up a function by its name, which may not be unique. It would store
    a lambda as code, which loses the Python variables from outside that it uses.
    """
    values = [*objects, *(value for one in objects for value in vars(one).values())]
    functions = [
        f for f in values if isinstance(f, types.FunctionType) and not _is_keras(f)
    ]
    custom: dict[str, Any] = {
        type(value).__name__: type(value)
        for value in values
        if hasattr(value, "get_config") and not _is_keras(type(value))
    }
    names = {id(function): function.__name__ for function in functions}
    for i, function in enumerate(functions):
        function.__name__ = f"function_{i}_by_reference"
        custom[function.__name__] = function
    try:
        with keras.saving.custom_object_scope(custom):
            yield
    finally:
        for function in functions:
            function.__name__ = names[id(function)]


def _is_keras(thing: Any) -> bool:
    return (thing.__module__ or "").split(".")[0] == "keras"
