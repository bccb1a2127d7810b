"""Schedules: phases in their order, and the learning rate of every step."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ...errors import PlanError
from .phase import Phase, check_whole

# Of the highest rate to the lowest in ULMFiT's slanted triangle (arXiv 1801.06146).
_SLANTED_RATIO = 32


def head_only(*, epochs: int = 10, learning_rate: float = 1e-3) -> list[Phase]:
    """Trains the head on the features of the encoder as it was published.

    The features are computed once, so further epochs cost next to nothing.

    Args:
        epochs: How often to go through the data, at least 1.
        learning_rate: The highest learning rate.

    Returns:
        One phase.

    Example:

    ```python
    report = tlkit.fit(model, splits, schedule=tlkit.head_only(epochs=20))
    ```
    """
    return [Phase("head", epochs=epochs, learning_rate=learning_rate)]


def head_then_all(
    *,
    head_epochs: int = 30,
    epochs: int = 3,
    head_learning_rate: float = 3e-3,
    learning_rate: float = 5e-5,
    head_patience: int | None = 3,
    warmup: float = 0.1,
    layer_decay: float = 1.0,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> list[Phase]:
    """Trains the head until it stops improving, then everything at a lower rate.

    A new head sends gradients into the encoder that mean nothing yet; trained first, it
    does not spoil what the encoder has learned. Where the features are computed once,
    the epochs of the head cost next to nothing, so it may take as many as it likes.

    Args:
        head_epochs: The most epochs of the first phase.
        epochs: Epochs of the second phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the second phase.
        head_patience: Epochs without a lower loss after which the first phase ends, as
            for `Phase`; its rate is constant then. `None`: it has all its epochs, and
            its rate falls along a cosine.
        warmup: Share of the second phase in which its rate rises.
        layer_decay: How much slower earlier blocks learn in the second phase, as for
            `Phase`.
        batch_norm: What batch norms do in the second phase, as for `Phase`.

    Returns:
        Two phases.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = tlkit.head_then_all(epochs=5, learning_rate=3e-5)
    print(tlkit.plan(model, schedule))
    ```
    """
    return [
        _head(head_epochs, head_learning_rate, head_patience),
        Phase(
            "all",
            epochs=epochs,
            learning_rate=learning_rate,
            warmup=warmup,
            layer_decay=layer_decay,
            batch_norm=batch_norm,
        ),
    ]


def gradual(
    *,
    blocks: int = 3,
    head_epochs: int = 30,
    epochs: int = 1,
    head_learning_rate: float = 3e-3,
    learning_rate: float = 2e-4,
    head_patience: int | None = 3,
    warmup: float = 0.1,
    layer_decay: float = 1 / 2.6,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> list[Phase]:
    """Trains the head, then one more block of the encoder in each phase.

    It begins with the last block (gradual unfreezing), each block learns more slowly
    than the one after it (discriminative rates), and the rate of each phase is a
    slanted triangle: Howard and Ruder 2018, ULMFiT, arXiv 1801.06146. Their ablation
    has the gain in the three together.

    Args:
        blocks: How many blocks are trained in the end, at least 1; `plan` says if the
            encoder has fewer.
        head_epochs: The most epochs of the first phase.
        epochs: Epochs of each further phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the head in the further phases; the last
            block has `layer_decay` times that.
        head_patience: Epochs without a lower loss after which the first phase ends, as
            for `head_then_all`.
        warmup: Share of each further phase in which its rate rises.
        layer_decay: How much slower earlier blocks learn, as for `Phase`; 1 for all
            alike.
        batch_norm: What the batch norms of trained blocks do, as for `Phase`.

    Returns:
        `blocks + 1` phases.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    report = tlkit.fit(model, splits, schedule=tlkit.gradual(blocks=2, epochs=2))
    ```
    """
    check_whole("blocks", blocks)
    thawing = [
        Phase(
            count,
            epochs=epochs,
            learning_rate=learning_rate,
            warmup=warmup,
            decay="slanted",
            layer_decay=layer_decay,
            batch_norm=batch_norm,
        )
        for count in range(1, blocks + 1)
    ]
    return [_head(head_epochs, head_learning_rate, head_patience), *thawing]


def _head(epochs: int, learning_rate: float, patience: int | None) -> Phase:
    # The rate of a phase that may end early must not wait for its end to fall.
    decay = "cosine" if patience is None else "constant"
    return Phase(
        "head",
        epochs=epochs,
        learning_rate=learning_rate,
        decay=decay,
        patience=patience,
    )


def learning_rates(phase: Phase, steps: int) -> np.ndarray:
    """The learning rate of every step of a phase, for the head.

    Args:
        phase: The phase.
        steps: How many steps it has, at least 1; with `patience`, at most.

    Returns:
        Float64 `[steps]`. The last step of the warm-up and the one after it have the
        highest rate; the decay would reach its end one step after the last. A slanted
        triangle begins at its lowest rate, so that only the step after the warm-up has
        the highest, as in the paper.

    Example:

    ```python
    phase = tlkit.Phase(learning_rate=0.32, decay="slanted", warmup=0.5)
    print(tlkit.training.learning_rates(phase, 4))  # 0.01, 0.165, 0.32, 0.165
    ```
    """
    step = np.arange(steps)
    warm = _warm_steps(phase, steps)
    rising = (step + 1) / max(warm, 1)
    progress = np.clip((step - warm) / max(steps - warm, 1), 0, 1)
    if phase.decay == "cosine":
        falling = (1 + np.cos(np.pi * progress)) / 2
    elif phase.decay == "linear":
        falling = 1 - progress
    elif phase.decay == "slanted":
        rising = _above_lowest(step / max(warm, 1))
        falling = _above_lowest(1 - progress)
    else:
        falling = np.ones(steps)
    return phase.learning_rate * np.where(step < warm, rising, falling)


def _warm_steps(phase: Phase, steps: int) -> int:
    wanted = round(phase.warmup * steps, 6)  # 0.1 * 70 is more than 7
    # The paper rounds down; a triangle of a few steps would else begin, or be, low.
    return math.floor(wanted) if phase.decay == "slanted" else math.ceil(wanted)


def _above_lowest(share: np.ndarray) -> np.ndarray:
    """From the lowest of the slanted triangle (0) to its highest (1)."""
    return (1 + share * (_SLANTED_RATIO - 1)) / _SLANTED_RATIO


def check_schedule(schedule) -> tuple[Phase, ...]:
    """The phases of a schedule.

    Raises:
        PlanError: It is not a phase or a list of phases, or it is empty.
    """
    phases = (schedule,) if isinstance(schedule, Phase) else schedule
    right = isinstance(phases, (list, tuple)) and phases
    if not right or not all(isinstance(phase, Phase) for phase in phases):
        raise PlanError(
            "A schedule is one Phase or a list of them, at least one. Received: "
            f"{schedule!r}. Type tlkit.head_only(), tlkit.head_then_all(), "
            'tlkit.gradual() or [tlkit.Phase("head"), tlkit.Phase("all")].'
        )
    return tuple(phases)
