"""A run of `fit`: what stays the same through its phases, and where it has come to."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from .averages import Averages
from .frozen_check import Before, Proof
from .interrupts import Interrupts
from .optimizer import Rate
from .step import Setting


@dataclasses.dataclass
class Position:
    """Where a run is; a checkpoint keeps it.

    Attributes:
        phase: Index of the phase.
        phase_epochs: Epochs done in the phase.
        updates: Updates made in the phase.
        epoch: Epochs done in the run.
        batches: Batches taken in the epoch that is not done yet.
        seen: Batches taken in the run.
    """

    phase: int = 0
    phase_epochs: int = 0
    updates: int = 0
    epoch: int = 0
    batches: int = 0
    seen: int = 0

    def next_phase(self) -> None:
        """Goes to the beginning of the next phase."""
        self.phase += 1
        self.phase_epochs = self.updates = self.batches = 0

    def next_epoch(self) -> None:
        """Goes to the beginning of the next epoch."""
        self.epoch += 1
        self.phase_epochs += 1
        self.batches = 0


@dataclasses.dataclass(frozen=True)
class PhaseResult:
    """What happened in a phase: its proof, its epochs and its seconds."""

    proof: Proof
    epochs: int
    seconds: float


@dataclasses.dataclass
class Run:
    """What stays the same, and what is counted, through all phases of a `fit`.

    Attributes:
        model: The whole model.
        setting: What the step functions have in common.
        callbacks: Keras's, in a list.
        rate: Sets the learning rate.
        published: Weights of the encoder from before training, for L2-SP.
        averages: Moving averages of the weights.
        interrupts: Signals that came in.
        accumulation: Batches in one update.
        call_size: Updates in one call of TensorFlow; `None` for as many as take a
            quarter of a second.
        chief: Whether this process writes and prints.
        verbose: 0 for silence.
        position: Where the run is.
        results: What happened in the phases that are done.
        before: Checksums from the beginning of the phase.
        seconds: How long the run took before it was resumed.
    """

    model: keras.Model
    setting: Setting
    callbacks: keras.callbacks.CallbackList
    rate: Rate
    published: dict[int, tf.Tensor]
    averages: Averages
    interrupts: Interrupts
    accumulation: int = 1
    call_size: int | None = None
    chief: bool = True
    verbose: int = 1
    position: Position = dataclasses.field(default_factory=Position)
    results: list[PhaseResult] = dataclasses.field(default_factory=list)
    before: Before | None = None
    seconds: float = 0.0

    @property
    def history(self) -> dict[str, list[float]]:
        """The figures of each epoch by Keras's names, with what callbacks add."""
        return self.model.history.history
