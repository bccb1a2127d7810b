"""A plan: what a schedule means for one model, before anything is spent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import keras

from ...encoders import Block, find_encoder
from ...errors import PlanError
from .cache_plan import ActivationCache, Amount, Kept, cache_options, what_to_keep
from .layer_decay import block_factors, rate_factors
from .phase import Phase
from .schedules import check_schedule
from .trainable_selection import Choice, choose, learnable_weights


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """What one phase means for one model.

    Attributes:
        phase: The phase.
        blocks: For each block of the encoder and then the head, how much of it is
            trained: 0.0 (nothing) to 1.0 (all of it).
        rates: For each of them the highest learning rate, trained or not.
        variables: How many variables are trained.
        parameters: How many numbers they hold.
        frozen: How many learnable variables are not trained.
        kept: What of the frozen blocks is computed once and kept, or `None`.
        steps: How many batches it trains on, with `patience` at most; `None` if the
            data is not known.
    """

    phase: Phase
    blocks: tuple[float, ...]
    rates: tuple[float, ...]
    variables: int
    parameters: int
    frozen: int
    kept: Kept | None
    steps: int | None

    @property
    def cached(self) -> bool:
        """Whether anything of the frozen blocks is computed once."""
        return self.kept is not None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a schedule means for one model; `print` shows blocks against phases.

    Attributes:
        blocks: Names of the encoder's blocks by depth, and `"head"` at the end; for a
            model without an encoder only `"model"`.
        phases: A `PhasePlan` for each phase.
        learnable: How many variables of the model can be trained at all.
        parameters: How many numbers they hold.
    """

    blocks: tuple[str, ...]
    phases: tuple[PhasePlan, ...]
    learnable: int
    parameters: int

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
    """Says what a schedule means for a model; changes nothing in the model.

    Args:
        model: The model, with an encoder of `tlkit` or any other.
        schedule: A phase, or phases in their order.
        examples: How many training examples there are, if it is known.
        batch_size: Examples in a batch, at least 1.
        cache: As for `fit`.

    Returns:
        The plan; `print` it.

    Raises:
        PlanError: A phase trains nothing, names no block, asks for more than there are,
            or for a `layer_decay` in a model without blocks.

    Example:

    ```python
    print(tlkit.plan(model, tlkit.gradual(blocks=2), examples=5485))
    ```
    """
    if examples is not None and examples < 1:
        raise PlanError(f"examples must be 1 or more, or None; got {examples!r}.")
    if batch_size < 1:
        raise PlanError(f"batch_size must be 1 or more; got {batch_size!r}.")
    batches = None if examples is None else math.ceil(examples / batch_size)
    return make_plan(
        model,
        check_schedule(schedule),
        batches=batches,
        cache=cache_options(cache),
        examples=examples,
    )


def make_plan(
    model: keras.Model,
    phases: Sequence[Phase],
    *,
    batches: int | None,
    cache: ActivationCache | None,
    examples: int | None = None,
    tokens: float | None = None,
) -> Plan:
    """The plan for data of which the numbers are known, or `None`.

    Args:
        model: The model.
        phases: The phases.
        batches: Updates in an epoch.
        cache: How activations are kept; `None` for not at all.
        examples: How many examples there are.
        tokens: Their mean length, for texts.
    """
    encoder = find_encoder(model)
    blocks = encoder.blocks if encoder is not None else ()
    learnable = learnable_weights(model)
    return Plan(
        blocks=(*(block.name for block in blocks), "head") if blocks else ("model",),
        phases=tuple(
            _plan_phase(
                model, phase, blocks, len(learnable), batches, cache, (examples, tokens)
            )
            for phase in phases
        ),
        learnable=len(learnable),
        parameters=_parameters(learnable),
    )


def _plan_phase(
    model, phase, blocks, learnable: int, batches, cache, data
) -> PhasePlan:
    choice = choose(model, phase)
    rate_factors(model, choice, phase.layer_decay)  # refuses what makes no sense
    factors = (*block_factors(len(blocks), phase.layer_decay), 1.0)
    steps = phase.steps
    if steps is None and batches is not None:
        steps = phase.epochs * batches
    shares = tuple(_share(block, choice) for block in blocks)
    return PhasePlan(
        phase=phase,
        blocks=(*shares, 1.0 if choice.head else 0.0),
        rates=tuple(phase.learning_rate * factor for factor in factors),
        variables=len(choice.trained),
        parameters=_parameters(choice.trained),
        frozen=learnable - len(choice.trained),
        kept=_kept(model, phase, choice, batches, cache, data),
        steps=steps,
    )


def _kept(model, phase, choice, batches, cache, data) -> Kept | None:
    if cache is None:
        return None
    epochs = phase.epochs
    if epochs is None:
        epochs = 1.0 if batches is None else phase.steps / batches
    examples, tokens = data
    amount = Amount(examples, epochs, tokens)
    return what_to_keep(model, phase, choice, amount, cache)


def _share(block: Block, choice: Choice) -> float:
    trained = {id(variable) for variable in choice.trained}
    inside = [id(variable) in trained for variable in block.learnable]
    # A block with nothing to train counts as trained where it runs as in training.
    return sum(inside) / len(inside) if inside else float(block in choice.blocks)


def _parameters(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


# === The table ===


def _table(plan: Plan) -> str:
    phases = [planned.phase for planned in plan.phases]
    rows = [["", *(f"{i}. {phase.title}" for i, phase in enumerate(phases, start=1))]]
    for i, name in enumerate(plan.blocks):
        rows.append([name, *(_cell(planned, i) for planned in plan.phases)])
    rows.append([])
    rows.append(["variables", *(f"{p.variables:,}" for p in plan.phases)])
    rows.append(["parameters", *(f"{p.parameters:,}" for p in plan.phases)])
    rows.append(["learning rate", *map(_rate, phases)])
    if any(phase.layer_decay != 1 for phase in phases):
        rows.append(["layer decay", *map(_layer_decay, phases)])
    rows.append(["length", *map(_length, plan.phases)])
    if any(phase.patience is not None for phase in phases):
        rows.append(["patience", *map(_patience, phases)])
    rows.append(["kept", *(_kept_words(p.kept) for p in plan.phases)])
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


def _cell(planned: PhasePlan, i: int) -> str:
    share = planned.blocks[i]
    if not share:
        return "–"
    word = "train" if share == 1.0 else "in part"
    if planned.phase.layer_decay == 1:
        return word
    return f"{word} at {planned.rates[i]:.2g}"


def _rate(phase: Phase) -> str:
    warm = f", {phase.warmup:.0%} warm-up" if phase.warmup else ""
    return f"{phase.learning_rate:g} {phase.decay}{warm}"


def _layer_decay(phase: Phase) -> str:
    return "–" if phase.layer_decay == 1 else f"{phase.layer_decay:.3g} a block"


def _patience(phase: Phase) -> str:
    return "–" if phase.patience is None else _epochs(phase.patience)


def _length(planned: PhasePlan) -> str:
    phase = planned.phase
    words = [] if phase.epochs is None else [_epochs(phase.epochs)]
    words += [] if planned.steps is None else [f"{planned.steps:,} steps"]
    return ("" if phase.patience is None else "at most ") + ", ".join(words)


def _kept_words(kept: Kept | None) -> str:
    if kept is None:
        return "–"
    words = [kept.name]
    if kept.size is not None:
        words.append(
            f"{_bytes(kept.size)} in {kept.where}".replace("in disk", "on disk")
        )
    return ", ".join([*words, f"saves {kept.saves:.0%}"])


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count > 1 else ''}"
