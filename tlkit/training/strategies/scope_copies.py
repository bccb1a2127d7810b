"""Copies a model into a strategy's scope, and its state back out of it.

A variable belongs to the scope in which it was created. So the copy is a new model from
the config of the original, to which the state of the original is assigned.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ...encoders import Encoder
from ...errors import TrainingError
from .config_clones import clone_from_config
from .layer_tree import all_layers, child_layers
from .strategies import Placement

# Pairs of a layer, or variable, of one model and its counterpart in another one.
Pairs = list[tuple[Any, Any]]


@contextlib.contextmanager
def model_in_scope(model: keras.Model, placement: Placement) -> Iterator[keras.Model]:
    """Yields the model or its copy in the strategy's scope, then copies it back."""
    inner = copy_into_scope(model, placement.strategy) if placement.copy else model
    try:
        with placement.strategy.scope(), tf.device(placement.device):
            yield inner
    finally:
        if placement.copy:
            copy_out_of_scope(inner, model)
        # Keras would reuse a train function that was traced with another `trainable`.
        model.train_function = None


def copy_into_scope(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> keras.Model:
    """Returns a copy of a model that belongs to a strategy's scope.

    The copy has the model's weights, the states of its seed generators and metrics, the
    `trainable` of each layer and variable, and the same names and paths. It is not
    compiled. With several workers, all of them get the state of the first one.

    Args:
        model: A built model, created outside any scope or in another one.
        strategy: The strategy, or `tf.distribute.get_strategy()` outside any scope.

    Raises:
        TrainingError: The model cannot be created from its config.
    """
    with _explained_errors(model, strategy), strategy.scope():
        copy = clone_from_config(model)
        layers, variables = _matched_pairs(model, copy)
    _assign_names(layers, variables)
    _assign_state(layers, variables)
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        _broadcast_from_first_worker([twin for _, twin in variables], strategy)
    return copy


def copy_out_of_scope(copy: keras.Model, model: keras.Model) -> None:
    """Assigns the state of a copy to the original model.

    Variables that differ between replicas, such as a batch norm's statistics, are taken
    from the first replica.

    Args:
        copy: The model that `copy_into_scope` returned.
        model: The model that it was copied from.
    """
    _assign_state(*_matched_pairs(copy, model))


def recreate_in_scope(
    original: keras.optimizers.Optimizer | keras.metrics.Metric,
    strategy: tf.distribute.Strategy,
) -> Any:
    """Returns a new optimizer or metric with the same settings in a strategy's scope.

    Its state is not copied.

    Raises:
        TrainingError: It cannot be created from its config.
    """
    name = type(original).__name__
    try:
        with strategy.scope():
            copy = clone_from_config(original)
    except Exception as error:  # a user's class may raise any error
        kind = "metric" if isinstance(original, keras.metrics.Metric) else "optimizer"
        raise TrainingError(
            f"The {name} was created outside the scope of the "
            f"{type(strategy).__name__}, and cannot be copied into it: "
            f"{_one_line(error)} Create it in the scope:\n"
            "    with strategy.scope():\n"
            f"        {kind} = {name}(…)"
        ) from error
    # Private, and not in the config: the arguments of `exclude_from_weight_decay`
    # (test_optimizers_and_metrics_go_too). Variables are excluded by their `id`, so an
    # excluded variable must be in the strategy's scope; names hold in any scope.
    names = ("_exclude_from_weight_decay_pattern", "_exclude_from_weight_decay")
    pairs = [(original, copy)]
    if isinstance(original, keras.optimizers.LossScaleOptimizer):
        pairs.append((original.inner_optimizer, copy.inner_optimizer))
    for one, other in pairs:
        for name in names:
            if hasattr(one, name):
                setattr(other, name, getattr(one, name))
    return copy


@contextlib.contextmanager
def _explained_errors(
    model: keras.Model, strategy: tf.distribute.Strategy
) -> Iterator[None]:
    """Turns any error into one that says how to avoid the copy."""
    try:
        yield
    except Exception as error:  # a user's layer may raise any error
        reason = _one_line(error)
        restored = [x for x in all_layers(model) if not getattr(x, "opened", True)]
        if restored:
            why = restored[0].why_not_opened
            reason = f"its encoder calls a restored function, since {why}."
        raise TrainingError(
            f"The model {model.name!r} was built outside the scope of the "
            f"{type(strategy).__name__}, and cannot be copied into it: {reason} Build "
            "it in the scope:\n"
            "    with strategy.scope():\n"
            "        model = …\n"
            "    tlkit.fit(model, …, strategy=strategy)"
        ) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300].rstrip(".") + "."


# === Matching ===


def _matched_pairs(one: keras.Model, other: keras.Model) -> tuple[Pairs, Pairs]:
    """Returns the layers of two models in pairs, and their variables in pairs.

    Raises:
        TrainingError: The models differ.
    """
    layers: Pairs = []
    twins: dict[int, keras.layers.Layer] = {}

    def visit(layer, twin) -> None:
        known = twins.get(id(layer), twin)
        if type(layer) is not type(twin) or known is not twin:
            raise TrainingError(
                f"the layer {layer.name!r} differs when it is created from its config."
            )
        if id(layer) in twins:
            return
        twins[id(layer)] = twin
        for pair in _match(child_layers(layer), child_layers(twin), layer):
            visit(*pair)
        layers.append((layer, twin))

    visit(one, other)
    layers.reverse()  # so that a layer precedes all layers in it
    variables = [
        pair
        for layer, twin in layers
        for pair in _match(_own_variables(layer), _own_variables(twin), layer)
    ]
    for variable, twin in variables:
        if (variable.shape, variable.dtype) != (twin.shape, twin.dtype):
            raise TrainingError(
                f"the variable {variable.path!r} has another shape or dtype when it is "
                "created from a config."
            )
    return layers, variables


def _match(ones: list, others: list, layer: keras.layers.Layer) -> Pairs:
    """Returns pairs by name if the names are unique and the same, else in order."""
    if len(ones) != len(others):
        raise TrainingError(
            f"{layer.name!r} has {len(ones)} layers or variables of its own, and "
            f"{len(others)} when it is created from its config."
        )
    names = [one.name for one in ones]
    by_name = {other.name: other for other in others}
    if set(names) == set(by_name) and len(set(names)) == len(names):
        return [(one, by_name[one.name]) for one in ones]
    return list(zip(ones, others, strict=True))


def _own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns a layer's variables and those of its metrics, without child layers'."""
    below = {id(v) for child in child_layers(layer) for v in child.variables}
    # Private: the public list of a compiled model includes the metrics of `compile`
    # (test_there_and_back).
    metrics = [v for metric in layer._metrics for v in metric.variables]
    own = {id(v): v for v in [*layer.variables, *metrics] if id(v) not in below}
    return list(own.values())


# === Assigning ===


def _assign_names(layers: Pairs, variables: Pairs) -> None:
    """Gives the copies the originals' names, since Keras numbers default names anew."""
    for variable, twin in variables:
        # Private: there is no other way to rename a variable, and checkpoints identify
        # it by its path (test_there_and_back).
        twin._name, twin._path = variable.name, variable.path
    for layer, twin in layers:
        twin.name = layer.name


def _assign_state(layers: Pairs, variables: Pairs) -> None:
    for variable, twin in variables:
        twin.assign(tf.convert_to_tensor(variable.value))
    for layer, twin in layers:
        _copy_assets(layer, twin)
        twin.trainable = layer.trainable  # also sets that of all layers inside
    for variable, twin in variables:
        twin.trainable = variable.trainable


def _copy_assets(layer: keras.layers.Layer, twin: keras.layers.Layer) -> None:
    """Copies the state that some layers of Keras have in addition to variables."""
    if isinstance(layer, keras.layers.Normalization):
        twin.finalize_state()
    if hasattr(layer, "save_assets") and not isinstance(layer, Encoder):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            twin.load_assets(folder)


def _broadcast_from_first_worker(
    variables: list[keras.Variable], strategy: tf.distribute.Strategy
) -> None:
    """Gives all workers the first one's values: random initial values may differ."""

    def in_replica():
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        for variable in variables:
            value = tf.convert_to_tensor(variable.value)
            # Collectives support neither bools nor unsigned integers.
            sent = value if value.dtype.is_floating else tf.cast(value, tf.int64)
            sent = tf.where(first, sent, tf.zeros_like(sent))
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, sent)
            variable.assign(tf.cast(total, value.dtype))

    tf.function(lambda: strategy.run(in_replica), autograph=False)()
