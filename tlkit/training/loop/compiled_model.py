"""Reads what a model is compiled with, and compiles it for the time of a run.

Keras itself resolves losses and metrics in every form that `compile` takes: one or
several outputs, names, functions, `loss_weights`, `weighted_metrics`. So a model is
compiled while it is trained, and the loop uses the losses and metrics of `compile`.

All private names of compiled models are in this module and in `loss_and_metrics`
(Keras 3.13 to 3.15); tests/training/loop/test_compiled_model.py notices when one
changes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

# Private. It traces a function without running it, which creates the variables that the
# function needs. Keras's own `fit` uses it to build metrics and losses.
from keras.src.backend import compute_output_spec

from ...errors import TrainingError


@dataclasses.dataclass(frozen=True)
class CompileArguments:
    """The arguments of `compile` with which a model is trained.

    Attributes:
        optimizer: `None` for the default one.
        loss, loss_weights, metrics, weighted_metrics: As `compile` takes them.
        compiled: Whether the loss and metrics are those that the model was compiled
            with.
        scales_loss: Whether `compile` would add a `LossScaleOptimizer`.
        steps_per_execution: That of the model's `compile`, if above 1.
        run_eagerly: That of the model's `compile`.
    """

    optimizer: keras.optimizers.Optimizer | None
    loss: Any
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None
    compiled: bool = False
    scales_loss: bool = False
    steps_per_execution: int | None = None
    run_eagerly: bool = False


def compile_config(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of the model's `compile`; empty if it is not compiled."""
    config = getattr(model, "_compile_config", None)
    return dict(config.config) if model.compiled and config is not None else {}


def asks_for_xla(model: keras.Model) -> bool:
    """Returns whether `compile(jit_compile=True)` was called; `False` if unknown.

    On a GPU, Keras stores the default `"auto"` as `True`, so that it cannot be told
    from the user's `True`.
    """
    asked = bool(compile_config(model).get("jit_compile"))
    return asked and not model._resolve_auto_jit_compile()


def reads_inputs(model: keras.Model) -> bool:
    """Returns whether the model has its own `compute_loss`, which gets the inputs."""
    return type(model).compute_loss is not keras.Model.compute_loss


@contextlib.contextmanager
def compiled(
    model: keras.Model,
    arguments: CompileArguments,
    optimizer: keras.optimizers.Optimizer,
    batch_spec: tuple,
    convert_metric: Callable[[keras.metrics.Metric], keras.metrics.Metric],
    *,
    replicas: int = 1,
) -> Iterator[None]:
    """Compiles a model in a context, and creates the variables of its metrics.

    The end of the context restores what the model was compiled with before.

    Args:
        model: The model, built, in the strategy's scope.
        arguments: The arguments of `compile`.
        optimizer: The optimizer that trains, as `model.optimizer`.
        batch_spec: Specs of the inputs, the labels and the weights, which may be ().
        convert_metric: Returns the metric to use for one of the arguments.
        replicas: The replicas of the strategy.

    Raises:
        TrainingError: Keras rejects the losses or the metrics.
    """
    before = dict(vars(model))
    loss = arguments.loss
    if replicas > 1:
        loss = keras.tree.map_structure(_with_values, loss)
    if not (arguments.compiled and model.compiled) or replicas > 1:
        # Not `model.compile`, which a user's class may have replaced.
        keras.Model.compile(
            model,
            optimizer,
            loss=loss,
            loss_weights=arguments.loss_weights,
            metrics=_converted(arguments.metrics, convert_metric),
            weighted_metrics=_converted(arguments.weighted_metrics, convert_metric),
            run_eagerly=arguments.run_eagerly,
            jit_compile=False,
            auto_scale_loss=False,
        )
    # As in `compile`, without Keras's `__setattr__`, which would track its variables.
    vars(model)["optimizer"] = optimizer
    missing = object()
    changed = [k for k, v in vars(model).items() if before.get(k, missing) is not v]
    try:
        _build(model, batch_spec)
        yield
    finally:
        for name in changed:
            vars(model).pop(name, None)
            if name in before:
                vars(model)[name] = before[name]


def _converted(metrics: Any, convert: Callable) -> Any:
    is_metric = lambda m: isinstance(m, keras.metrics.Metric)
    return keras.tree.map_structure(
        lambda m: convert(m) if is_metric(m) else m, metrics
    )


def _with_values(loss: Any) -> Any:
    """Returns a loss whose result is never a scalar.

    Keras divides a loss that it reduces itself by the number of replicas, but not a
    scalar that a user's loss returns.
    """

    def values(labels, outputs):
        result = function(labels, outputs)
        return tf.reshape(result, [1]) if len(result.shape) == 0 else result

    function = loss.call if isinstance(loss, keras.losses.Loss) else loss
    if isinstance(loss, str) or not callable(loss) or _is_keras(loss):
        return loss
    if type(loss).__call__ is not keras.losses.Loss.__call__ and function is not loss:
        return loss  # `GlobalLoss` rejects it
    values.__name__ = getattr(loss, "name", getattr(loss, "__name__", "loss"))
    if function is loss:
        return values
    return _LossOfValues(values, name=loss.name, reduction=loss.reduction)


class _LossOfValues(keras.losses.Loss):
    def __init__(self, values: Callable, **options):
        super().__init__(**options)
        self.call = values


def _is_keras(loss: Any) -> bool:
    module = loss.__module__ if hasattr(loss, "__name__") else type(loss).__module__
    return module.split(".")[0] == "keras"


def _build(model: keras.Model, batch_spec: tuple) -> None:
    """Creates the metrics and losses of each output, as Keras's `fit` does first."""
    inputs, labels, weights = keras.tree.map_structure(_symbol, batch_spec)
    weights = None if isinstance(weights, tuple) and not weights else weights
    if isinstance(model, keras.Sequential) and model.outputs:
        outputs = model.outputs[0]
    elif getattr(model, "outputs", None):
        outputs = model.output
    else:
        outputs = model.compute_output_spec(inputs)
    labels = _hard_label_spec(model, labels, outputs)
    build = compute_output_spec
    if model.run_eagerly:  # a user's code may need values instead of symbols
        build = lambda function, *nests, **options: function(
            *map(_zeros, nests), **{k: _zeros(v) for k, v in options.items()}
        )
    metrics, losses = model._compile_metrics, model._compile_loss
    try:
        if losses is not None and not losses.built:
            build(losses, labels, outputs, sample_weight=weights)
        if metrics is not None and not metrics.built:
            build(metrics.update_state, labels, outputs, sample_weight=weights)
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        names = getattr(model, "output_names", None)
        raise TrainingError(
            "Keras cannot apply the losses or the metrics to the labels and outputs: "
            f"{str(error).strip()}\nThe labels are {_shapes(labels)}, the outputs "
            f"{_shapes(outputs)}{f', named {names}' if names else ''}. Give losses and "
            "metrics as for model.compile: one for each output, in a list or a dict by "
            "these names."
        ) from error


def _zeros(nest: Any) -> Any:
    """Returns a nest of zeros with one example, for a nest of symbols."""
    shape = lambda symbol: [1 if size is None else size for size in symbol.shape]
    return keras.tree.map_structure(
        lambda x: None if x is None else tf.zeros(shape(x), x.dtype), nest
    )


def _shapes(nest: Any) -> str:
    return str(keras.tree.map_structure(lambda one: f"{one.dtype} {one.shape}", nest))


def _symbol(spec: tf.TensorSpec) -> keras.KerasTensor:
    return keras.KerasTensor(spec.shape, spec.dtype.name)


def _hard_label_spec(model: keras.Model, labels: Any, outputs: Any) -> Any:
    """Returns the spec of the labels for which losses and metrics are created.

    If the labels are MixUp's probabilities, but the loss takes class indices, it is the
    spec of indices; `loss_and_metrics` converts the labels of each batch.
    """
    if keras.tree.is_nested(labels) or keras.tree.is_nested(outputs):
        return labels
    if is_index_loss(model.loss) and has_soft_labels(labels, outputs):
        return keras.KerasTensor(labels.shape[:1], "int32")
    return labels


def is_index_loss(loss: Any) -> bool:
    """Returns whether a loss, in any form, is the cross-entropy of class indices."""
    if loss in ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"):
        return True
    # Keras's losses wrap a function.
    function = getattr(loss, "fn", loss)
    return function is keras.losses.sparse_categorical_crossentropy


def has_soft_labels(labels, outputs) -> bool:
    """Returns whether labels are class probabilities, as MixUp and CutMix make them."""
    if keras.tree.is_nested(labels) or keras.tree.is_nested(outputs):
        return False
    same_rank = len(labels.shape) == len(outputs.shape)
    classes = outputs.shape[-1] if outputs.shape else None
    floating = keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(labels.dtype)
    )
    return same_rank and labels.shape[-1:] == (classes,) and classes != 1 and floating
