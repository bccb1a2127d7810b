"""Carries a model into a strategy's scope, and what became of it back.

A variable belongs to the scope that it was made in. So a model from elsewhere is made
a second time inside, from its config, and its state goes over.

Makes Keras objects a second time, from their configs, within the same process.
"""

from __future__ import annotations

import contextlib
import inspect
import tempfile
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ...encoders import Encoder
from ...errors import TrainingError


def carry_in(model: keras.Model, strategy: tf.distribute.Strategy) -> keras.Model:
    """Makes a copy of a model in a strategy's scope.

    The copy has the model's weights, the states of its seed generators and metrics, its
    `trainable` everywhere, and the names and paths of its layers and variables. It is
    not compiled. Under several workers, all get the weights of the first.

    Args:
        model: A built model, made outside any scope or in another one.
        strategy: Where the copy is to live; `tf.distribute.get_strategy()` outside any
            scope for none.

    Returns:
        The copy. What becomes of it goes back with `carry_back`.

    Raises:
        TrainingError: The model cannot be made again from its config.
    """
    with _told(model, strategy), strategy.scope():
        inner = remake(model)
        pairs = _pairs(model, inner)
    _take_names(*pairs)
    _take_state(*pairs)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        _take_from_first_worker([twin for _, twin in pairs[1]], strategy)
    return inner


def carry_back(inner: keras.Model, model: keras.Model) -> None:
    """Gives a model the state that its copy has now.

    Of what each replica has for itself, such as a batch norm's statistics, that of the
    first replica counts.

    Args:
        inner: What `carry_in` gave.
        model: The model that it was made of, which is written to.
    """
    _take_state(*_pairs(inner, model))


def carry_tool(
    tool: keras.optimizers.Optimizer | keras.metrics.Metric,
    strategy: tf.distribute.Strategy,
) -> Any:
    """Makes an optimizer or a metric in a strategy's scope, with the same settings.

    It begins anew: what the given one counted stays behind.

    Raises:
        TrainingError: It cannot be made again from its config.
    """
    try:
        with strategy.scope():
            copy = remake(tool)
    except Exception as error:  # whatever a class of the user's may raise
        kind = "metric" if isinstance(tool, keras.metrics.Metric) else "optimizer"
        raise TrainingError(
            f"The {type(tool).__name__} was made outside the scope of the "
            f"{type(strategy).__name__}, and cannot be carried in: {_words(error)} "
            "Make it in the scope:\n"
            "    with strategy.scope():\n"
            f"        {kind} = {type(tool).__name__}(…)"
        ) from error
    # Private, and not in the config: what `exclude_from_weight_decay` was told. Its
    # names hold anywhere, its variables only in the scope that they were made in.
    for name in ("_exclude_from_weight_decay_pattern", "_exclude_from_weight_decay"):
        if hasattr(tool, name):
            setattr(copy, name, getattr(tool, name))
    return copy


@contextlib.contextmanager
def _told(model: keras.Model, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says how to do without carrying, if it fails."""
    try:
        yield
    except Exception as error:  # whatever a layer of the user's may raise
        why = _words(error)
        restored = [x for x in all_layers(model) if not getattr(x, "opened", True)]
        if restored:
            reason = restored[0].why_not_opened
            why = f"its encoder calls a restored function, since {reason}."
        raise TrainingError(
            f"The model {model.name!r} was built outside the scope of the "
            f"{type(strategy).__name__}, and cannot be carried in: {why} Build it in "
            "the scope:\n"
            "    with strategy.scope():\n"
            "        model = …\n"
            "    tlkit.fit(model, …, strategy=strategy)"
        ) from error


def _words(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:300].rstrip(".") + "."


# === Pairs of layers and of variables ===

Pairs = list[tuple[Any, Any]]


def _pairs(one: keras.Model, other: keras.Model) -> tuple[Pairs, Pairs]:
    """Each layer of a model with its twin in another, and each variable with its.

    Raises:
        TrainingError: The models differ.
    """
    layers: Pairs = []
    twins: dict[int, keras.layers.Layer] = {}

    def visit(layer, twin) -> None:
        known = twins.get(id(layer), twin)
        if type(layer) is not type(twin) or known is not twin:
            raise TrainingError(
                f"the layer {layer.name!r} comes out differently when it is made again."
            )
        if id(layer) in twins:
            return
        twins[id(layer)] = twin
        for pair in _matched(children(layer), children(twin), layer):
            visit(*pair)
        layers.append((layer, twin))

    visit(one, other)
    layers.reverse()  # a layer then stands before all that are in it
    variables = [p for x, y in layers for p in _matched(_own(x), _own(y), x)]
    for variable, twin in variables:
        if (variable.shape, variable.dtype) != (twin.shape, twin.dtype):
            raise TrainingError(
                f"the variable {variable.path!r} has another shape or dtype when it is "
                "made again."
            )
    return layers, variables


def _matched(ones: list, others: list, layer: keras.layers.Layer) -> list[tuple]:
    """Pairs by name where the names say it all, else in order."""
    if len(ones) != len(others):
        raise TrainingError(
            f"{layer.name!r} has {len(ones)} layers or variables of its own, and "
            f"{len(others)} when it is made again."
        )
    names = [one.name for one in ones]
    by_name = {other.name: other for other in others}
    if set(names) == set(by_name) and len(set(names)) == len(names):
        return [(one, by_name[one.name]) for one in ones]
    return list(zip(ones, others, strict=True))


def _own(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's weights, seed generators' states and metrics' variables."""
    below = {id(v) for child in children(layer) for v in child.variables}
    # Private: a compiled model's public list has the metrics of `compile`, too.
    metrics = [v for metric in layer._metrics for v in metric.variables]
    found = [v for v in [*layer.variables, *metrics] if id(v) not in below]
    return list({id(v): v for v in found}.values())


# === What goes over ===


def _take_names(layers: Pairs, variables: Pairs) -> None:
    """Gives the copies the names, which Keras numbers anew where nobody chose them."""
    for variable, twin in variables:
        # Private: there is no other way to rename. By its path a variable is found in a
        # checkpoint.
        twin._name, twin._path = variable.name, variable.path
    for layer, twin in layers:
        twin.name = layer.name


def _take_state(layers: Pairs, variables: Pairs) -> None:
    for variable, twin in variables:
        twin.assign(tf.convert_to_tensor(variable.value))
    for layer, twin in layers:
        _take_assets(layer, twin)
        twin.trainable = layer.trainable  # which writes to all that is in it
    for variable, twin in variables:
        twin.trainable = variable.trainable


def _take_assets(layer: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """What some layers of Keras keep beside their variables."""
    if isinstance(layer, keras.layers.Normalization):
        twin.finalize_state()
    if hasattr(layer, "save_assets") and not isinstance(layer, Encoder):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            twin.load_assets(folder)


def _take_from_first_worker(
    variables: list[keras.Variable], strategy: tf.distribute.Strategy
) -> None:
    """Gives all workers the first one's state, which chance may have made different."""

    def in_replica():
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        for variable in variables:
            value = tf.convert_to_tensor(variable.value)
            # Collectives know neither booleans nor unsigned numbers.
            sent = value if value.dtype.is_floating else tf.cast(value, tf.int64)
            sent = tf.where(first, sent, tf.zeros_like(sent))
            found = context.all_reduce(tf.distribute.ReduceOp.SUM, sent)
            variable.assign(tf.cast(found, value.dtype))

    tf.function(lambda: strategy.run(in_replica), autograph=False)()


# === Remaking ===


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
