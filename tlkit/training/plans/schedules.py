"""Creates schedules (lists of phases), and computes the learning rates of steps."""

import math
from typing import Literal

import numpy as np

from ...errors import PlanError
from .phase import Phase, check_whole

# The highest rate divided by the lowest in ULMFiT's triangle (arXiv 1801.06146).
_SLANTED_RATIO = 32


def head_only(*, epochs: int = 10, learning_rate: float = 1e-3) -> list[Phase]:
    """Returns a schedule that trains the head on the published encoder's features.

    The features are computed once, so further epochs cost next to nothing.

    Args:
        epochs: Passes over the data, at least 1.
        learning_rate: The highest learning rate.

    Returns:
        One phase.

    Example:

    ```python
    schedule = tlkit.head_only(epochs=20)
    [phase.title for phase in schedule]  # ["head"]
    report = tlkit.fit(model, splits, schedule=schedule)
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
    """Returns a schedule that trains the head, then everything at a lower rate.

    The gradients of a new head are random and would damage the encoder, so the head is
    trained first. Its epochs cost next to nothing where the features are cached.

    Args:
        head_epochs: The maximum of epochs of the first phase.
        epochs: Epochs of the second phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the second phase.
        head_patience: Epochs without a lower loss after which the first phase ends, as
            for `Phase`, with a constant rate. If `None`, it lasts for `head_epochs`,
            and its learning rate falls along a cosine.
        warmup: The fraction of the second phase in which its rate rises.
        layer_decay: The factor on the rate from block to block in the second phase, as
            for `Phase`.
        batch_norm: The statistics of batch norms in the second phase, as for `Phase`.

    Returns:
        Two phases.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = tlkit.head_then_all(epochs=5, learning_rate=3e-5)
    [phase.title for phase in schedule]  # ['head', 'all']
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
    """Returns a schedule that trains the head, then one more block in each phase.

    Blocks are unfrozen from the last one on (gradual unfreezing), each block learns
    more slowly than the next (discriminative rates), and the rate of each phase is a
    slanted triangle: Howard and Ruder 2018, ULMFiT, arXiv 1801.06146. In their
    ablation, the gain comes from all three together.

    Args:
        blocks: The number of blocks that are trained in the end, at least 1 and at most
            those of the encoder.
        head_epochs: The maximum of epochs of the first phase.
        epochs: Epochs of each further phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the head in the further phases; the last
            block has `layer_decay` times that.
        head_patience: Epochs without a lower loss after which the first phase ends, as
            for `head_then_all`.
        warmup: The fraction of each further phase in which its rate rises.
        layer_decay: The factor on the rate from block to block, as for `Phase`; 1 for
            equal rates.
        batch_norm: The statistics of batch norms in trained blocks, as for `Phase`.

    Returns:
        `blocks + 1` phases.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = tlkit.gradual(blocks=2, epochs=2)
    [phase.title for phase in schedule]  # ['head', 'last 1', 'last 2']
    ```
    """
    check_whole("blocks", blocks)
    unfreezing = [
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
    return [_head(head_epochs, head_learning_rate, head_patience), *unfreezing]


def _head(epochs: int, learning_rate: float, patience: int | None) -> Phase:
    # A phase that may end early needs a rate that does not depend on its length.
    decay = "cosine" if patience is None else "constant"
    return Phase(
        "head",
        epochs=epochs,
        learning_rate=learning_rate,
        decay=decay,
        patience=patience,
    )


def learning_rates(phase: Phase, steps: int) -> np.ndarray:
    """Computes the learning rate of the head for every step of a phase.

    Args:
        phase: The phase.
        steps: The number of steps, at least 1; with `patience`, the maximum.

    Returns:
        Float64 `[steps]`. The last step of the warm-up and the next one have the
        highest rate; the decay would reach its end one step after the last. A slanted
        triangle begins at its lowest rate, so that only the step after the warm-up has
        the highest, as in the paper.

    Example:

    ```python
    phase = tlkit.Phase(learning_rate=0.32, decay="slanted", warmup=0.5)
    tlkit.training.learning_rates(phase, 4).tolist()  # [0.01, 0.165, 0.32, 0.165]
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
    exact = round(phase.warmup * steps, 6)  # as floats, 0.1 * 70 is more than 7
    # The paper rounds down. Rounding up would lower the rates of short triangles.
    return math.floor(exact) if phase.decay == "slanted" else math.ceil(exact)


def _above_lowest(height: np.ndarray) -> np.ndarray:
    """Maps heights in [0, 1] linearly to factors on the learning rate in [1/32, 1]."""
    return (1 + height * (_SLANTED_RATIO - 1)) / _SLANTED_RATIO


def check_schedule(schedule) -> tuple[Phase, ...]:
    """Returns the phases of a schedule.

    Raises:
        PlanError: The schedule is not a phase or a list of phases, or it is empty.
    """
    phases = (schedule,) if isinstance(schedule, Phase) else schedule
    valid = isinstance(phases, (list, tuple)) and phases
    if not valid or not all(isinstance(phase, Phase) for phase in phases):
        raise PlanError(
            "A schedule is one Phase or a list of them, at least one. Received: "
            f"{schedule!r}. Type tlkit.head_only(), tlkit.head_then_all(), "
            'tlkit.gradual() or [tlkit.Phase("head"), tlkit.Phase("all")].'
        )
    return tuple(phases)
