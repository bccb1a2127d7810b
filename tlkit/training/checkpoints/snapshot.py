"""Copies the state of a run for a checkpoint, and restores it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..loop.averages import MovingAverages
from ..loop.update_counts import counts_by_name, update_counts
from .callback_states import CallbackStates
from .checkpoint_files import CheckpointWarning
from .fingerprint import mismatch_error
from .variable_names import stable_names, unique_names, without_number


def take_snapshot(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    metrics: Sequence[keras.metrics.Metric],
    callbacks: CallbackStates,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies the variables and the callbacks' states of a run.

    All workers must call it, outside of replicas, since reading a metric sums it over
    all workers. If the statistics of batch norms differ between replicas, those of the
    first replica are copied.

    Args:
        model: The model.
        optimizer: Built for all variables that are trained in any phase.
        metrics: The metrics of the current epoch, including the loss.
        callbacks: The callbacks.

    Returns:
        Arrays by name, under `weights/`, `optimizer/` and `metrics/`; and plain values.
        The caller may add to both.
    """
    arrays = {
        name: to_numpy(variable)
        for name, variable in {
            **weights_by_name(model),
            **slots_by_name(optimizer, model),
            **_counts_by_name(optimizer, model),
            **_metrics_by_name(metrics),
        }.items()
    }
    return arrays, {"callbacks": callbacks.collect()}


def to_numpy(variable: keras.Variable | tf.Variable) -> np.ndarray:
    """Copies a variable's value; under a strategy, that of the first replica."""
    return np.array(tf.convert_to_tensor(variable))


def restore_snapshot(
    arrays: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    *,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    metrics: Sequence[keras.metrics.Metric],
    callbacks: CallbackStates,
) -> None:
    """Restores a snapshot, also in another process or under another strategy.

    If a weight or an optimizer variable does not fit, nothing is changed. Metrics that
    do not fit start from zero, with a `CheckpointWarning`.

    Args:
        arrays, state: The snapshot.
        model, optimizer, metrics: With all of their variables built.
        callbacks: After `on_train_begin`, which resets them.

    Raises:
        TrainingError: A variable is missing in the checkpoint or in the model, or has
            another shape or dtype there.
    """
    variables = weights_by_name(model) | slots_by_name(optimizer, model)
    counts = _counts_by_name(optimizer, model)
    prefixes = ("weights/", "optimizer/")
    saved = {k: array for k, array in arrays.items() if k.startswith(prefixes)}
    counted = not counts.keys().isdisjoint(saved)  # tlkit 0.1 saved no counts
    if counted:
        variables |= counts
        saved, variables = _without_untrained(saved, variables)
    if sentences := list(_misfits(saved, variables).values()):
        title = "The checkpoint does not fit the model or its optimizer"
        raise mismatch_error(title, sentences)
    for name, variable in variables.items():
        variable.assign(saved[name])
    for name in counts.keys() - variables.keys():
        counts[name].assign(0)
    if counts and not counted:
        update_counts(optimizer).estimate(model.weights)
    _restore_metrics(arrays, metrics)
    callbacks.restore(state["callbacks"])


def _without_untrained(
    saved: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]
) -> tuple[dict[str, np.ndarray], dict[str, keras.Variable]]:
    """Drops the optimizer's slots of weights that had no update at the checkpoint.

    Phases that have not begun may be replaced before a run is resumed. Then such slots
    may be missing in the checkpoint, or in the optimizer.
    """
    there, here = ({_owner(name) for name in names} for names in (saved, variables))
    idle = {_owner(k) for k, a in saved.items() if k.endswith("/updates") and a == 0}
    dropped = ((here - there) | (idle - here)) - {""}
    return (
        {name: array for name, array in saved.items() if _owner(name) not in dropped},
        {name: v for name, v in variables.items() if _owner(name) not in dropped},
    )


def _owner(name: str) -> str:
    """Returns a slot's name without its last part; empty for other variables."""
    is_slot = name.startswith("optimizer/") and name.count("/") > 1
    return name.rsplit("/", 1)[0] if is_slot else ""


def _misfits(
    saved: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]
) -> dict[str, str]:
    """Returns, by name, a sentence for each variable that does not fit."""
    wrong = {}
    for name in sorted(saved.keys() | variables):
        if name not in saved:
            wrong[name] = f"{name} is missing in the checkpoint"
        elif name not in variables:
            wrong[name] = f"{name} is in the checkpoint, but missing here"
        elif _kind(saved[name]) != _kind(variables[name]):
            there, here = _kind(saved[name]), _kind(variables[name])
            wrong[name] = f"{name} is {there} in the checkpoint, but {here} here"
    return wrong


def _kind(value: np.ndarray | keras.Variable) -> str:
    return f"{keras.backend.standardize_dtype(value.dtype)} {list(value.shape)}"


# === Names ===


def weights_by_name(
    model: keras.Model, prefix: str = "weights/"
) -> dict[str, keras.Variable]:
    """Returns the model's weights by names that are the same in every process."""
    return _by_name(prefix, stable_names(model.weights), model.weights)


def slots_by_name(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> dict[str, keras.Variable]:
    """Returns the optimizer's variables by stable names.

    The slots of a weight contain the weight's name, as in
    `"optimizer/head/dense/kernel/velocity"`. Other variables, such as the number of
    updates, have their own names.
    """
    # Keras names a slot after the path of its weight, which is not documented
    # (test_every_slot_stands_under_its_weight). Slots that are named otherwise keep
    # their own names, with numbers in their order.
    owners = {
        f"{weight.path.replace('/', '_')}_": name
        for weight, name in zip(model.weights, stable_names(model.weights), strict=True)
    }
    slots = {id(v): (_slot_name(v.name, owners), v) for v in optimizer.variables}
    for attribute, value in _attributes(optimizer):
        # Nadam's product of momenta is not in `variables` of an outer optimizer.
        if isinstance(value, keras.Variable):
            slots.setdefault(id(value), (attribute.strip("_"), value))
    names, variables = zip(*slots.values(), strict=True)
    return _by_name("optimizer/", unique_names(names), variables)


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


# === Moving averages ===


def averages_by_name(
    averages: MovingAverages, model: keras.Model
) -> dict[str, np.ndarray]:
    """Copies the moving averages of the weights of a model that have one."""
    return {
        name: to_numpy(averages.by_id[id(weight)])
        for name, weight in weights_by_name(model, "averages/").items()
        if id(weight) in averages.by_id
    }


def restore_averages(
    averages: MovingAverages, arrays: Mapping[str, np.ndarray], model: keras.Model
) -> None:
    """Restores moving averages; call it after the model's weights are restored.

    If the checkpoint has no average of a weight, the average gets the weight's value.
    """
    names = {id(v): name for name, v in weights_by_name(model, "averages/").items()}
    numbered = "averages/0" in arrays  # by tlkit 0.1, in the order of the weights
    for i, variable in enumerate(averages.variables):
        name = f"averages/{i}" if numbered else names[id(variable)]
        value = arrays.get(name, tf.convert_to_tensor(variable))
        averages.by_id[id(variable)].assign(value)


# === Published values ===


def restore_published(
    pretrained: dict[int, tf.Tensor],
    arrays: Mapping[str, np.ndarray],
    model: keras.Model,
) -> None:
    """Restores the pretrained values, from which L2-SP measures a weight's distance.

    Args:
        pretrained: The values by the `id` of the weight; changed in place.
        arrays: The arrays of the checkpoint.
        model: The model, whose weights are restored.

    Raises:
        TrainingError: A new phase needs values that the checkpoint does not have.
    """
    # Checkpoints of tlkit 0.1 contain no counts of updates.
    counted = any(name.endswith("/updates") for name in arrays)
    names = weights_by_name(model, "optimizer/")
    for index, (name, weight) in enumerate(names.items()):
        published = arrays.get(f"published/{index}")
        if published is not None:
            pretrained[id(weight)] = tf.constant(published)
        elif id(weight) in pretrained:
            if not counted or arrays.get(f"{name}/updates", 0):
                raise TrainingError(
                    "A new phase has l2_sp, but the checkpoint does not contain the "
                    f"published values of {weight.path}, which was trained. Leave "
                    "l2_sp out, or start over in another directory."
                )
            pretrained[id(weight)] = tf.identity(weight.value)


# === Metrics ===


def _metrics_by_name(
    metrics: Sequence[keras.metrics.Metric],
) -> dict[str, keras.Variable]:
    names = unique_names([metric.name for metric in metrics])
    return {
        f"metrics/{name}/{i}": variable
        for name, metric in zip(names, metrics, strict=True)
        for i, variable in enumerate(metric.variables)
    }


def _restore_metrics(
    arrays: Mapping[str, np.ndarray], metrics: Sequence[keras.metrics.Metric]
) -> None:
    variables = _metrics_by_name(metrics)
    saved = {k: array for k, array in arrays.items() if k.startswith("metrics/")}
    changed = {_metric_name(name) for name in _misfits(saved, variables)}
    for name, variable in variables.items():
        if _metric_name(name) not in changed:
            variable.assign(saved[name])
    if changed:
        warnings.warn(
            "Metrics that are not those of the checkpoint start from zero in the "
            f"middle of an epoch: {', '.join(sorted(changed))}.",
            CheckpointWarning,
            stacklevel=2,
        )


def _metric_name(name: str) -> str:
    return name.split("/", 1)[1].rsplit("/", 1)[0]
