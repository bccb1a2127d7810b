"""Makes Keras objects a second time, from their configs, within the same process."""

from __future__ import annotations

import contextlib
import inspect
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from ...errors import TrainingError


def remake(
    thing: keras.layers.Layer | keras.optimizers.Optimizer | keras.metrics.Metric,
) -> Any:
    """Makes a model, an optimizer or a metric from its config, as new.

    Custom classes and functions, lambdas too, need not be registered.

    Args:
        thing: What is to be made again. A model that is compiled comes out as one that
            isn't, and one that is built comes out built, if Keras can.

    Returns:
        The other one.

    Raises:
        TrainingError: A model in it has no config of its own.
        Exception: Whatever else Keras, or a class of the user's, raises.
    """
    layers = all_layers(thing) if isinstance(thing, keras.layers.Layer) else [thing]
    for layer in layers:
        _check_config(layer)
    with _by_reference(layers), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model '.*' had a build config")
        config = keras.saving.serialize_keras_object(thing)
        # An optimizer's slots would be made for nothing.
        config.pop("compile_config", None)
        return keras.saving.deserialize_keras_object(config)


def _check_config(layer: Any) -> None:
    """Refuses models whose config is Keras's guess.

    Keras notes the arguments that a layer is made with, but takes a model's for the
    defaults, whatever was given (Keras 3.13 to 3.15).
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
def _by_reference(things: Sequence[Any]) -> Iterator[None]:
    """Lets configs refer to the very classes and functions, registered or not.

    Keras would look functions up by a name that need not be theirs alone, and store
    lambdas as code, which loses the names that they use.
    """
    values = [*things, *(value for thing in things for value in vars(thing).values())]
    functions = [
        f for f in values if isinstance(f, types.FunctionType) and not _of_keras(f)
    ]
    known: dict[str, Any] = {
        type(value).__name__: type(value)
        for value in values
        if hasattr(value, "get_config") and not _of_keras(type(value))
    }
    names = {id(function): function.__name__ for function in functions}
    for i, function in enumerate(functions):
        function.__name__ = f"function_{i}_by_reference"
        known[function.__name__] = function
    try:
        with keras.saving.custom_object_scope(known):
            yield
    finally:
        for function in functions:
            function.__name__ = names[id(function)]


def _of_keras(thing: Any) -> bool:
    return (thing.__module__ or "").split(".")[0] == "keras"


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all below it; one that is used twice comes twice."""
    return [layer, *(x for child in children(layer) for x in all_layers(child))]


def children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right below a layer, but for input layers."""
    # Private, and the only list of the layers inside a layer (Keras 3.13 to 3.15). A
    # Sequential model makes itself an input layer or not, and it has no state.
    inside = layer._flatten_layers(recursive=False, include_self=False)
    return [child for child in inside if not isinstance(child, keras.layers.InputLayer)]
