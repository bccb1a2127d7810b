"""Plans a schedule for one model, before any compute is spent."""

import dataclasses
import math
from collections.abc import Sequence

import keras

from ...encoders import Block, find_encoder
from ...errors import PlanError
from .cache_plan import ActivationCache, CachePlan, cache_options, plan_cache
from .layer_decay import block_factors, check_layer_decay
from .phase import Phase
from .schedules import check_schedule
from .trainable_selection import (
    TrainableSelection,
    learnable_weights,
    select_trainable,
    weights_at,
)


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """The plan of one phase for one model.

    Attributes:
        phase: The phase.
        blocks: For each block of the encoder and then the head, the trained fraction of
            its variables, in [0, 1].
        rates: The highest learning rate of each of these, also if it is not trained.
        variables: The number of trained variables.
        parameters: The number of trained parameters.
        frozen: The number of learnable variables that are not trained.
        kept: The activations of frozen blocks that are cached, or `None`.
        steps: The number of updates, with `patience` the maximum; `None` if the amount
            of data is unknown.
        selection: Positions in `model.weights` of the trained, free and frozen weights,
            which also hold for a copy of the model.
    """

    phase: Phase
    blocks: tuple[float, ...]
    rates: tuple[float, ...]
    variables: int
    parameters: int
    frozen: int
    kept: CachePlan | None
    steps: int | None
    selection: TrainableSelection

    @property
    def cached(self) -> bool:
        """Whether the output of frozen blocks is computed once and cached."""
        return self.kept is not None

    def trained_weights(self, model: keras.Model) -> tuple[keras.Variable, ...]:
        """Returns the weights of a model that the optimizer updates."""
        return weights_at(model, self.selection.trained)

    def free_weights(self, model: keras.Model) -> tuple[keras.Variable, ...]:
        """Returns the weights of a model that may change without the optimizer."""
        return weights_at(model, self.selection.free)

    def frozen_weights(self, model: keras.Model) -> tuple[keras.Variable, ...]:
        """Returns the weights of a model that must not change."""
        return weights_at(model, self.selection.frozen)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The plan of a schedule for one model; `print` shows a table of it.

    Attributes:
        blocks: Names of the encoder's blocks by depth, and `"head"` at the end; for a
            model without an encoder only `"model"`.
        phases: A `PhasePlan` for each phase.
        learnable: The number of variables of the model that can be trained at all.
        parameters: The number of their parameters.
        own_schedule: Whether the optimizer has a `LearningRateSchedule`, which replaces
            the learning rates of the phases.
    """

    blocks: tuple[str, ...]
    phases: tuple[PhasePlan, ...]
    learnable: int
    parameters: int
    own_schedule: bool = False

    def __str__(self) -> str:
        return _table(self)


def plan(
    model: keras.Model,
    schedule: Phase | Sequence[Phase],
    *,
    examples: int | None = None,
    batch_size: int = 32,
    cache: bool | str | ActivationCache = "auto",
) -> Plan:
    """Plans a schedule for a model, without changing the model.

    Args:
        model: The model, with an encoder of `tlkit` or any other.
        schedule: A phase, or phases in their order.
        examples: The number of training examples, if it is known.
        batch_size: Examples in a batch, at least 1.
        cache: As for `fit`.

    Returns:
        The plan; `print` it.

    Raises:
        PlanError: A phase trains nothing, a pattern matches no block, a number exceeds
            that of the blocks, or a model without blocks has a `layer_decay`.

    Example:

    ```python
    plan = tlkit.plan(model, tlkit.gradual(blocks=2), examples=64)
    [phase.parameters for phase in plan.phases]  # [21, 249, 365]
    ```
    """
    if examples is not None and examples < 1:
        raise PlanError(f"examples must be 1 or more, or None; got {examples!r}.")
    if batch_size < 1:
        raise PlanError(f"batch_size must be 1 or more; got {batch_size!r}.")
    return make_plan(
        model,
        check_schedule(schedule),
        updates=None if examples is None else math.ceil(examples / batch_size),
        cache=cache_options(cache),
        examples=examples,
    )


def make_plan(
    model: keras.Model,
    phases: Sequence[Phase],
    *,
    updates: int | None,
    cache: ActivationCache | None,
    examples: int | None = None,
    tokens: float | None = None,
    own_schedule: bool = False,
) -> Plan:
    """Plans phases for data of a known or unknown (`None`) size.

    Args:
        model: The model.
        phases: The phases.
        updates: The number of updates in an epoch.
        cache: How activations are cached; `None` for no cache.
        examples: The number of examples.
        tokens: The mean length of texts in tokens.
        own_schedule: As for `Plan`.

    Raises:
        PlanError: A phase does not fit the model.
    """
    encoder = find_encoder(model)
    blocks = encoder.blocks if encoder is not None else ()
    learnable = learnable_weights(model)
    phase_plans = []
    for phase in phases:
        check_layer_decay(model, phase.layer_decay)
        selection = select_trainable(model, phase)
        trained = weights_at(model, selection.trained)
        steps, epochs = phase.steps, phase.epochs
        if updates is not None:
            steps = steps or epochs * updates
            epochs = epochs or steps / updates
        phase_cache = None
        if cache is not None:
            data = {"examples": examples, "epochs": epochs or 1.0, "tokens": tokens}
            phase_cache = plan_cache(model, selection, cache, **data)
        factors = (*block_factors(len(blocks), phase.layer_decay), 1.0)
        fractions = [_trained_fraction(block, trained, selection) for block in blocks]
        phase_plan = PhasePlan(
            phase=phase,
            blocks=(*fractions, 1.0 if selection.head else 0.0),
            rates=tuple(phase.learning_rate * factor for factor in factors),
            variables=len(trained),
            parameters=_parameter_count(trained),
            frozen=len(learnable) - len(trained),
            kept=phase_cache,
            steps=steps,
            selection=selection,
        )
        phase_plans.append(phase_plan)
    return Plan(
        blocks=(*(block.name for block in blocks), "head") if blocks else ("model",),
        phases=tuple(phase_plans),
        learnable=len(learnable),
        parameters=_parameter_count(learnable),
        own_schedule=own_schedule,
    )


def _trained_fraction(
    block: Block, trained: Sequence[keras.Variable], selection: TrainableSelection
) -> float:
    trained_ids = {id(variable) for variable in trained}
    flags = [id(variable) in trained_ids for variable in block.learnable]
    # A block without learnable variables counts as trained if it runs in training mode.
    return sum(flags) / len(flags) if flags else float(block.name in selection.blocks)


def _parameter_count(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


# === The printed table ===


def _table(plan: Plan) -> str:
    phases = [phase_plan.phase for phase_plan in plan.phases]
    rows = [["", *(f"{i}. {phase.title}" for i, phase in enumerate(phases, start=1))]]
    for i, name in enumerate(plan.blocks):
        rows.append([name, *(_block_cell(planned, i) for planned in plan.phases)])
    rows.append([])
    rows.append(["variables", *(f"{p.variables:,}" for p in plan.phases)])
    rows.append(["parameters", *(f"{p.parameters:,}" for p in plan.phases)])
    rates = [_learning_rate_cell(phase) for phase in phases]
    if plan.own_schedule:
        rates = ["optimizer's schedule"] * len(phases)
    rows.append(["learning rate", *rates])
    if any(phase.layer_decay != 1 for phase in phases):
        rows.append(["layer decay", *map(_layer_decay_cell, phases)])
    rows.append(["length", *map(_length_cell, plan.phases)])
    if any(phase.patience is not None for phase in phases):
        rows.append(["patience", *(_epoch_count(phase.patience) for phase in phases)])
    rows.append(["cached", *(_cache_cell(p.kept) for p in plan.phases)])
    total = f"Of {plan.learnable:,} variables with {plan.parameters:,} parameters."
    return "\n".join([*_aligned(rows), total])


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [
        max(len(row[k]) for row in rows if len(row) > k) for k in range(len(rows[0]))
    ]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=False)) for r in rows
    ]
    return [line.rstrip() for line in lines]


def _block_cell(planned: PhasePlan, i: int) -> str:
    fraction = planned.blocks[i]
    if not fraction:
        return "–"
    word = "train" if fraction == 1.0 else "in part"
    if planned.phase.layer_decay == 1:
        return word
    return f"{word} at {planned.rates[i]:.2g}"


def _learning_rate_cell(phase: Phase) -> str:
    warmup = f", {phase.warmup:.0%} warm-up" if phase.warmup else ""
    return f"{phase.learning_rate:g} {phase.decay}{warmup}"


def _layer_decay_cell(phase: Phase) -> str:
    return "–" if phase.layer_decay == 1 else f"{phase.layer_decay:.3g} a block"


def _length_cell(planned: PhasePlan) -> str:
    phase = planned.phase
    words = [] if phase.epochs is None else [_epoch_count(phase.epochs)]
    words += [] if planned.steps is None else [f"{planned.steps:,} steps"]
    return ("" if phase.patience is None else "at most ") + ", ".join(words)


def _cache_cell(cache: CachePlan | None) -> str:
    if cache is None:
        return "–"
    words = [cache.name]
    if cache.size is not None:
        preposition = "on" if cache.where == "disk" else "in"
        words.append(f"{_bytes(cache.size)} {preposition} {cache.where}")
    if cache.dtype == "float16":
        words.append("rounded to float16")
    return ", ".join([*words, f"saves {cache.saves:.0%}"])


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _epoch_count(count: int | None) -> str:
    return "–" if count is None else f"{count} epoch{'s' if count > 1 else ''}"
