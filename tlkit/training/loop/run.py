"""The state of one `fit`: its parts, its position and the results of its phases.

Tested in tests/training/checkpoints/test_resuming.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from .averages import MovingAverages
from .frozen_check import FrozenCheck, WeightChecksums
from .interrupts import Interrupts
from .learning_rate import LearningRate
from .step import StepSettings


@dataclasses.dataclass
class Position:
    """The position of a run, which is stored in checkpoints.

    Attributes:
        phase: Index of the phase.
        phase_epochs: Completed epochs of the phase.
        updates: Completed updates of the phase.
        epoch: Completed epochs of the run.
        batches: Batches taken in the current epoch.
        seen: Batches taken in the run.
    """

    phase: int = 0
    phase_epochs: int = 0
    updates: int = 0
    epoch: int = 0
    batches: int = 0
    seen: int = 0

    @property
    def is_in_phase(self) -> bool:
        """Whether the phase has begun."""
        return bool(self.phase_epochs or self.updates or self.batches)

    def next_phase(self) -> None:
        """Moves to the beginning of the next phase."""
        self.phase += 1
        self.phase_epochs = self.updates = self.batches = 0

    def next_epoch(self) -> None:
        """Moves to the beginning of the next epoch."""
        self.epoch += 1
        self.phase_epochs += 1
        self.batches = 0


@dataclasses.dataclass(frozen=True)
class PhaseResult:
    """The result of a phase: its last frozen check, its epochs, seconds and updates.

    In a checkpoint of tlkit 0.1, `updates` is `None`.
    """

    frozen_check: FrozenCheck
    epochs: int
    seconds: float
    updates: int | None = None

    def state(self) -> dict[str, Any]:
        """Returns the plain values that a checkpoint stores."""
        # The keys are those of tlkit 0.1.
        check = dataclasses.asdict(self.frozen_check)
        others = {"seconds": self.seconds, "updates": self.updates}
        return {"proof": check, "epochs": self.epochs, **others}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PhaseResult:
        """Returns a result from the plain values that its method `state` returned."""
        check = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in state["proof"].items()
        }
        names = ("epochs", "seconds", "updates")
        return cls(FrozenCheck(**check), **{name: state.get(name) for name in names})


@dataclasses.dataclass
class Run:
    """The parts and counters of a `fit`, through all phases.

    Attributes:
        model: The whole model.
        settings: The settings of all step functions.
        callbacks: Keras's callbacks.
        learning_rate: Sets the optimizer's learning rate.
        pretrained: The encoder's values before training, by `id` of the variable, for
            L2-SP.
        averages: Moving averages of the weights.
        interrupts: Handles and records Ctrl-C and SIGTERM.
        accumulation: Batches in one update.
        call_size: Updates in one call of TensorFlow; `None` for as many as take a
            quarter of a second.
        chief: Whether this process writes and prints.
        verbose: 0 for silence.
        validates: Returns whether to evaluate the model after an epoch, by its index.
        position: The position of the run.
        results: The results of completed phases.
        checksums: Checksums of the weights at the beginning of the phase.
        seconds: Seconds that the run took before it was resumed.
    """

    model: keras.Model
    settings: StepSettings
    callbacks: keras.callbacks.CallbackList
    learning_rate: LearningRate
    pretrained: dict[int, tf.Tensor]
    averages: MovingAverages
    interrupts: Interrupts
    accumulation: int = 1
    call_size: int | None = None
    chief: bool = True
    verbose: int = 1
    validates: Callable[[int], bool] = lambda epoch: True
    position: Position = dataclasses.field(default_factory=Position)
    results: list[PhaseResult] = dataclasses.field(default_factory=list)
    checksums: WeightChecksums | None = None
    seconds: float = 0.0

    @property
    def history(self) -> dict[str, list[float]]:
        """The logs of each epoch by Keras's names, with those that callbacks add."""
        return self.model.history.history
