"""Phases and schedules: which part of a model is trained, when, and how fast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..errors import PlanError

_DECAYS = ("cosine", "linear", "constant")


@dataclasses.dataclass(frozen=True, repr=False)
class Phase:
    """A stretch of training with one set of trained blocks.

    Args:
        train: What of the encoder is trained: `"head"` (nothing of it), `"all"`, a
            number (that many blocks at its end) or a list of patterns for the names of
            blocks and parts, as in a shell (`["stage3", "layer_1*"]`). What is not
            encoder, such as the head, is always trained. In a model without an encoder
            of `tlkit`, `"all"` is what the model itself leaves trainable.
        epochs: How often to go through the data, at least 1; 1 if `steps` is not given
            either.
        steps: How many batches to train on instead, at least 1, however many epochs
            that takes.
        learning_rate: The highest learning rate of the phase, above 0.
        warmup: The share of the phase's steps, in [0, 1), in which the learning rate
            rises to its highest in a straight line.
        decay: How it falls after that: to 0 along a `"cosine"` or a `"linear"` line, or
            not at all (`"constant"`).
        weight_decay: Share of a weight that a step takes away, times the learning rate;
            vectors (biases, norms) are spared. `None` leaves it to the optimizer: 0.01
            for that of `tlkit.fit`.
        l2_sp: Strength of a pull back to the weights that the encoder had before `fit`:
            half of it times the squared distance is added to the loss (L2-SP,
            arXiv 1802.01483). Vectors are spared. 0.01 to 0.1 is usual; 0 is off.
        batch_norm: What the batch norms of trained blocks do: `"frozen"` uses the
            published statistics, `"train"` those of the batch, and updates them.
        name: What to call the phase; by default what it trains.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = [
        tlkit.Phase("head", epochs=5),
        tlkit.Phase(2, epochs=3, learning_rate=1e-4, warmup=0.1),
    ]
    ```
    """

    train: str | int | Sequence[str] = "all"
    _: dataclasses.KW_ONLY
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.0
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float | None = None
    l2_sp: float = 0.0
    batch_norm: Literal["frozen", "train"] = "frozen"
    name: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "train", _checked_train(self.train))
        _check_length(self.epochs, self.steps)
        _check_number("learning_rate", self.learning_rate, "a number above 0", above=0)
        _check_number("warmup", self.warmup, "a share in [0, 1)", least=0, below=1)
        if self.weight_decay is not None:
            wanted = "None or a number of 0 or more"
            _check_number("weight_decay", self.weight_decay, wanted, least=0)
        _check_number("l2_sp", self.l2_sp, "a number of 0 or more", least=0)
        _check_choice("decay", self.decay, _DECAYS)
        _check_choice("batch_norm", self.batch_norm, ("frozen", "train"))
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise PlanError(f"name must be a text that says something: {self.name!r}.")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)

    @property
    def title(self) -> str:
        """Its name, or else what it trains."""
        if self.name is not None:
            return self.name
        if isinstance(self.train, int):
            return f"last {self.train}" if self.train else "head"
        return self.train if isinstance(self.train, str) else ", ".join(self.train)

    def __repr__(self) -> str:
        given = [repr(list(self.train) if _is_tuple(self.train) else self.train)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "train" and value != field.default:
                given.append(f"{field.name}={value!r}")
        return f"Phase({', '.join(given)})"


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
    head_epochs: int = 10,
    epochs: int = 3,
    head_learning_rate: float = 1e-3,
    learning_rate: float = 5e-5,
    warmup: float = 0.1,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> list[Phase]:
    """Trains the head first, then everything at a lower rate.

    A new head sends gradients into the encoder that mean nothing yet; trained first, it
    does not spoil what the encoder has learned.

    Args:
        head_epochs: Epochs of the first phase.
        epochs: Epochs of the second phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the second phase.
        warmup: Share of the second phase in which its rate rises.
        batch_norm: What batch norms do in the second phase, as for `Phase`.

    Returns:
        Two phases.

    Example:

    ```python
    schedule = tlkit.head_then_all(epochs=5, learning_rate=3e-5)
    print(tlkit.plan(model, schedule))
    ```
    """
    return [
        *head_only(epochs=head_epochs, learning_rate=head_learning_rate),
        Phase(
            "all",
            epochs=epochs,
            learning_rate=learning_rate,
            warmup=warmup,
            batch_norm=batch_norm,
        ),
    ]


def gradual(
    *,
    blocks: int = 3,
    head_epochs: int = 10,
    epochs: int = 1,
    head_learning_rate: float = 1e-3,
    learning_rate: float = 5e-5,
    warmup: float = 0.1,
    batch_norm: Literal["frozen", "train"] = "frozen",
) -> list[Phase]:
    """Trains the head, then one more block of the encoder in each phase.

    It begins with the last block (gradual unfreezing: Howard and Ruder 2018, ULMFiT,
    arXiv 1801.06146).

    Args:
        blocks: How many blocks are trained in the end, at least 1; `plan` says if the
            encoder has fewer.
        head_epochs: Epochs of the first phase.
        epochs: Epochs of each further phase.
        head_learning_rate: Highest learning rate of the first phase.
        learning_rate: Highest learning rate of the further phases.
        warmup: Share of each further phase in which its rate rises.
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
    _check_whole("blocks", blocks)
    thawing = [
        Phase(
            count,
            epochs=epochs,
            learning_rate=learning_rate,
            warmup=warmup,
            batch_norm=batch_norm,
        )
        for count in range(1, blocks + 1)
    ]
    return [*head_only(epochs=head_epochs, learning_rate=head_learning_rate), *thawing]


def learning_rates(phase: Phase, steps: int) -> np.ndarray:
    """The learning rate of every step of a phase.

    Args:
        phase: The phase.
        steps: How many steps it has, at least 1.

    Returns:
        Float64 `[steps]`. The last step of the warm-up and the one after it have the
        highest rate; the decay would reach 0 one step after the last.
    """
    step = np.arange(steps)
    warm = math.ceil(phase.warmup * steps)
    progress = np.clip((step - warm) / max(steps - warm, 1), 0, 1)
    falling = {
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "linear": 1 - progress,
        "constant": np.ones(steps),
    }[phase.decay]
    rising = (step + 1) / max(warm, 1)
    return phase.learning_rate * np.where(step < warm, rising, falling)


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


def _is_tuple(value) -> bool:
    return isinstance(value, tuple)


def _checked_train(train):
    """The choice, as a tuple if it is a list of patterns."""
    if train in ("head", "all"):
        return train
    if isinstance(train, (int, np.integer)) and not isinstance(train, bool):
        if train >= 0:
            return int(train)
    elif isinstance(train, (list, tuple)) and train:
        if all(isinstance(pattern, str) for pattern in train):
            return tuple(train)
    hint = f" Type train=[{train!r}]." if isinstance(train, str) else ""
    raise PlanError(
        'train must be "head", "all", a number of blocks at the end (0 or more) or a '
        f"list of patterns. Received: train={train!r}.{hint}"
    )


def _check_length(epochs, steps) -> None:
    if epochs is not None and steps is not None:
        raise PlanError(
            "A phase lasts for epochs or for steps, not both. Received: "
            f"epochs={epochs!r}, steps={steps!r}."
        )
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None:
            _check_whole(name, value)


def _check_whole(name: str, value) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise PlanError(f"{name} must be a whole number of 1 or more; got {value!r}.")


def _check_number(name, value, wanted, *, above=None, least=None, below=None) -> None:
    right = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    right = right and math.isfinite(value)
    right = right and (above is None or value > above)
    right = right and (least is None or value >= least)
    right = right and (below is None or value < below)
    if not right:
        raise PlanError(f"{name} must be {wanted}; got {value!r}.")


def _check_choice(name: str, value, choices: Sequence[str]) -> None:
    if value not in choices:
        there = ", ".join(repr(choice) for choice in choices)
        raise PlanError(f"{name} must be one of {there}; got {value!r}.")
