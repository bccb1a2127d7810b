"""Builds an optimizer for the variables of all phases, or extends one that is built.

An optimizer rejects variables that it was not built for, and a new optimizer would lose
its moments. Therefore an optimizer is built once for all variables that any phase
trains. If one `fit` has trained the head and the next trains all layers with the same
optimizer, the missing slots are added, and the existing ones stay.

Tested in tests/training/loop/test_optimizer_slots.py.
"""

from collections.abc import Sequence
from typing import Any

import keras

from ...errors import TrainingError
from .optimizer import innermost, replaced_attributes
from .update_counts import update_counts


def build_optimizer(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Creates the slots of variables that an optimizer does not have yet.

    Args:
        optimizer: An optimizer, in the scope of its strategy.
        variables: All variables that any phase trains, in the order of the model.

    Raises:
        TrainingError: It was built for other variables, and cannot be extended.
    """
    inner = innermost(optimizer)
    if not optimizer.built:
        # Loss scaling would build its inner optimizer again, which may lose its slots.
        is_built = inner is not optimizer and inner.built
        skipped = {"build": lambda variables: None} if is_built else {}
        with replaced_attributes(inner, **skipped):
            optimizer.build(list(variables))
    counts = update_counts(optimizer)
    # Private: no public list of the variables (Keras 3.13 to 3.15).
    # tests/training/loop/test_optimizer_slots.py notices when it changes.
    known = inner._trainable_variables
    known_ids = {id(variable) for variable in known}
    new = [v for v in variables if id(v) not in known_ids]
    if new:
        ids = {id(variable) for variable in variables}
        others = [v for v in known if id(v) not in ids]
        _extend(inner, [*others, *variables], new)
        if optimizer is not inner:
            _set_variables(optimizer, [*others, *variables])
    counts.align()


def _extend(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    new: Sequence[keras.Variable],
) -> None:
    """Adds the slots of new variables to a built optimizer.

    A copy of the optimizer is built for all variables. In the copy's lists of slots,
    the optimizer's existing slots replace the new ones; then the optimizer gets these
    lists.
    """
    try:
        copy = type(optimizer).from_config(optimizer.get_config())
        copy.build(list(variables))
    except Exception as error:  # a user's class may raise any error
        raise _cannot_extend(optimizer, new) from error
    indices = {id(v): i for i, v in enumerate(optimizer._trainable_variables)}
    positions = [indices.get(id(v)) for v in variables]
    kept: dict[int, keras.Variable] = {}
    lists: dict[str, list] = {}
    for name, value in vars(copy).items():
        if name in ("_variables", "_trainable_variables"):
            continue
        before = vars(optimizer).get(name)
        if isinstance(value, keras.Variable) and isinstance(before, keras.Variable):
            kept[id(value)] = before
        elif _is_slot_list(value, len(variables)) and _is_slot_list(
            before, len(indices)
        ):
            pairs = list(zip(value, positions, strict=True))
            lists[name] = [s if i is None else before[i] for s, i in pairs]
            kept |= {id(s): before[i] for s, i in pairs if i is not None}
    old = {id(v) for v in optimizer.variables}
    slots = [kept.get(id(v), v) for v in copy.variables]
    # An inner optimizer that loss scaling has built does not list all of its slots.
    slots = [v for v in slots if id(v) in old or id(v) not in map(id, kept.values())]
    if old - {id(v) for v in slots} or not _same_kinds(copy, kept):
        raise _cannot_extend(optimizer, new)
    for name, value in lists.items():
        setattr(optimizer, name, value)
    if optimizer.use_ema:
        # Averages begin at zero, and only an optimizer's very first update sets them.
        averages = optimizer._model_variables_moving_average
        for variable, average, i in zip(variables, averages, positions, strict=True):
            if i is None and average is not None:
                average.assign(variable)
    # Files of Keras store the variables in the order in which `build` creates them.
    tracker = vars(optimizer).pop("_tracker")  # or Keras would extend the old list
    optimizer._variables = slots
    is_variable, _ = tracker.config["variables"]
    tracker.config["variables"] = (is_variable, optimizer._variables)
    vars(optimizer)["_tracker"] = tracker
    _set_variables(optimizer, variables)


def _set_variables(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Makes an optimizer treat `variables` as those that it was built for."""
    # The base class's `build` creates no slots, except averages with `use_ema`.
    with replaced_attributes(optimizer, use_ema=False):
        keras.optimizers.Optimizer.build(optimizer, list(variables))


def _is_slot_list(value: Any, length: int) -> bool:
    """Returns whether a value is a list of `length` slots, some of which are `None`."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(one is None or isinstance(one, keras.Variable) for one in value)
    )


def _same_kinds(
    copy: keras.optimizers.Optimizer, kept: dict[int, keras.Variable]
) -> bool:
    return all(
        (v.shape, v.dtype) == (kept[id(v)].shape, kept[id(v)].dtype)
        for v in copy.variables
        if id(v) in kept
    )


def _cannot_extend(
    optimizer: keras.optimizers.Optimizer, new: Sequence[keras.Variable]
) -> TrainingError:
    return TrainingError(
        f"The optimizer was built before, and not for {len(new):,} of the variables to "
        f"train, such as {new[0].path}. The slots of {type(optimizer).__name__} cannot "
        "be extended. Give a new one: "
        "tlkit.fit(…, optimizer=keras.optimizers.AdamW())."
    )
