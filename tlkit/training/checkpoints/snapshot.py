"""What of a run goes into a checkpoint, and how it comes back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..loop.update_counts import counts_by_name, update_counts
from .callback_states import CallbackStates
from .checkpoint_files import CheckpointWarning
from .variable_names import stable_names, told_apart, without_number


def take(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    metrics: Sequence[keras.metrics.Metric],
    callbacks: CallbackStates,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies what a run has changed so far.

    Under a strategy it is called outside of replicas; with several workers by all of
    them, since the figures are summed over all. Replicas may differ in the statistics
    of batch norms: the first one's are taken.

    Args:
        model: The model.
        optimizer: Built for all that is trained.
        metrics: Those that hold the figures of the epoch so far, the loss among them.
        callbacks: The callbacks.

    Returns:
        Arrays by the names of their variables, under `weights/`, `optimizer/` and
        `metrics/`, and plain values. Both may be added to.
    """
    arrays = {
        name: keras.ops.convert_to_numpy(variable)
        for name, variable in {
            **weights_by_name(model),
            **slots_by_name(optimizer, model),
            **_counts_by_name(optimizer, model),
            **_metrics_by_name(metrics),
        }.items()
    }
    return arrays, {"callbacks": callbacks.take()}


def put_back(
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    *,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    metrics: Sequence[keras.metrics.Metric],
    callbacks: CallbackStates,
) -> None:
    """Puts back what `take` gave, perhaps in another process or on another strategy.

    Nothing is written before all of the weights and the optimizer's slots are known to
    fit. Figures of metrics that were changed begin anew, with a `CheckpointWarning`.

    Args:
        arrays: What `take` gave.
        state: What `take` gave.
        model: The model, with all of its weights made.
        optimizer: Built for the same variables.
        metrics: With their variables made.
        callbacks: After `on_train_begin`, which clears them.

    Raises:
        TrainingError: A variable is missing in the checkpoint or in the model, or has
            another shape or dtype there.
    """
    variables = weights_by_name(model) | slots_by_name(optimizer, model)
    counts = _counts_by_name(optimizer, model)
    prefixes = ("weights/", "optimizer/")
    saved = {k: array for k, array in arrays.items() if k.startswith(prefixes)}
    counted = not counts.keys().isdisjoint(saved)  # since tlkit 0.2
    if counted:
        variables |= counts
    wrong = list(_misfits(saved, variables).values())
    if wrong:
        more = f"\n  … and {len(wrong) - 10:,} more" if len(wrong) > 10 else ""
        raise TrainingError(
            "The checkpoint does not fit the model or its optimizer:\n  "
            + "\n  ".join(wrong[:10])
            + more
            + "\nMake them as they were to go on from it. To begin anew, give another "
            "directory, or delete the folder `checkpoints` in this one."
        )
    for name, variable in variables.items():
        variable.assign(saved[name])
    if counts and not counted:
        update_counts(optimizer).estimate(model.weights)
    _put_back_metrics(arrays, metrics)
    callbacks.put_back(state["callbacks"])


def _misfits(
    saved: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]
) -> dict[str, str]:
    """What does not fit, by name, in words."""
    wrong = {}
    for name in sorted(saved.keys() | variables):
        if name not in saved:
            wrong[name] = f"{name} is missing in the checkpoint"
        elif name not in variables:
            wrong[name] = f"{name} is in the checkpoint, and missing here"
        elif _kind(saved[name]) != _kind(variables[name]):
            there, here = _kind(saved[name]), _kind(variables[name])
            wrong[name] = f"{name} is {there} in the checkpoint, and {here} here"
    return wrong


def _kind(value: np.ndarray | keras.Variable) -> str:
    return f"{keras.backend.standardize_dtype(value.dtype)} {list(value.shape)}"


# === Names ===


def weights_by_name(
    model: keras.Model, prefix: str = "weights/"
) -> dict[str, keras.Variable]:
    """The model's weights by names that are the same in every process.

    Args:
        model: The model, or anything else with `weights`.
        prefix: What the names begin with.
    """
    return _by_name(prefix, stable_names(model.weights), model.weights)


def slots_by_name(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> dict[str, keras.Variable]:
    """The optimizer's variables, such as `"optimizer/head/dense/kernel/velocity"`.

    Slots of a weight stand under the weight's name. All others, such as the number of
    updates, go by their own.
    """
    # Keras names a slot after the path of its variable, which is not documented. Where
    # it is not found, the name is that of the slot alone, and the order tells which.
    owners = {
        f"{weight.path.replace('/', '_')}_": name
        for weight, name in zip(model.weights, stable_names(model.weights), strict=True)
    }
    found = {id(v): (_slot_name(v.name, owners), v) for v in optimizer.variables}
    for attribute, value in _attributes(optimizer):
        # Nadam, inside another optimizer, does not count its product of momenta.
        if isinstance(value, keras.Variable):
            found.setdefault(id(value), (attribute.strip("_"), value))
    names, variables = zip(*found.values(), strict=True)
    return _by_name("optimizer/", told_apart(names), variables)


def _counts_by_name(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> dict[str, tf.Variable]:
    names = weights_by_name(model, "optimizer/")
    return counts_by_name(optimizer, {id(v): name for name, v in names.items()})


def _attributes(optimizer: keras.optimizers.Optimizer) -> list[tuple[str, Any]]:
    inner = [getattr(optimizer, "inner_optimizer", None)]
    inner += getattr(optimizer, "optimizers", ())
    every = [optimizer, *(one for one in inner if one is not None)]
    return [pair for one in every for pair in vars(one).items()]


def _slot_name(name: str, owners: Mapping[str, str]) -> str:
    fitting = [start for start in owners if name.startswith(start)]
    if not fitting:
        return without_number(name)
    longest = max(fitting, key=len)
    return f"{owners[longest]}/{name.removeprefix(longest)}"


def _by_name(prefix: str, names: Sequence[str], variables: Sequence[keras.Variable]):
    named = zip(names, variables, strict=True)
    return {prefix + name: variable for name, variable in named}


# === Figures ===


def _metrics_by_name(
    metrics: Sequence[keras.metrics.Metric],
) -> dict[str, keras.Variable]:
    names = told_apart([metric.name for metric in metrics])
    return {
        f"metrics/{name}/{i}": variable
        for name, metric in zip(names, metrics, strict=True)
        for i, variable in enumerate(metric.variables)
    }


def _put_back_metrics(
    arrays: Mapping[str, np.ndarray], metrics: Sequence[keras.metrics.Metric]
) -> None:
    variables = _metrics_by_name(metrics)
    saved = {k: array for k, array in arrays.items() if k.startswith("metrics/")}
    changed = {_metric(name) for name in _misfits(saved, variables)}
    for name, variable in variables.items():
        if _metric(name) not in changed:
            variable.assign(saved[name])
    if changed:
        warnings.warn(
            "Other metrics than those of the checkpoint begin anew in the middle of an "
            f"epoch: {', '.join(sorted(changed))}.",
            CheckpointWarning,
            stacklevel=2,
        )


def _metric(name: str) -> str:
    return name.split("/", 1)[1].rsplit("/", 1)[0]
