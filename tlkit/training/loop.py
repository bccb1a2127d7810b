"""The loop: phases, epochs and steps, with Keras's callbacks around them."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from ..encoders import find_encoder, freeze
from ..errors import DataError, PlanError, TrainingError
from .choosing import Choice, choose
from .inputs import Feed
from .objectives import Objective
from .planning import PhasePlan
from .proof import Proof, prove, remember
from .published import l2_sp_loss
from .rates import Rate
from .schedules import learning_rates
from .showing import Display
from .steps import Meters, make_test_step, make_train_step

_LOOK_EVERY = 50  # steps between two looks at the losses


@dataclasses.dataclass
class Run:
    """What stays the same, and what is counted, through all phases of a `fit`.

    Attributes:
        model: The whole model.
        optimizer: Built for everything that any phase trains.
        objective: The loss.
        meters: Those of training, and after each epoch of validation.
        strategy: Where it runs.
        callbacks: Keras's, in a list.
        rate: Sets the learning rate.
        published: Weights of the encoder from before training, for L2-SP.
        verbose: 0 for silence.
        epoch: How many epochs are done.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    objective: Objective
    meters: Meters
    strategy: tf.distribute.Strategy
    callbacks: keras.callbacks.CallbackList
    rate: Rate
    published: dict[int, tf.Tensor]
    verbose: int = 1
    epoch: int = 0

    @property
    def history(self) -> dict[str, list[float]]:
        """The figures of each epoch by Keras's names, with what callbacks add."""
        return self.model.history.history


@dataclasses.dataclass(frozen=True)
class PhaseResult:
    """What happened in a phase: its proof, its epochs and its seconds."""

    proof: Proof
    epochs: int
    seconds: float


def run_phase(
    run: Run,
    planned: PhasePlan,
    part: keras.Model,
    train: Feed,
    validation: Feed | None,
) -> PhaseResult:
    """Trains for one phase.

    Args:
        run: The run, which is written to.
        planned: The phase.
        part: What is trained: the whole model, or its top where the feeds hold the
            features of the rest.
        train: The examples to train on, in the form that `part` takes.
        validation: The examples to measure with after each epoch, likewise.

    Returns:
        What happened.

    Raises:
        TrainingError: The loss is not finite, or a frozen variable moved.
    """
    began = time.monotonic()
    choice = set_trainable(run.model, planned)
    phase, first_epoch = planned.phase, run.epoch
    steps, epochs = _length(planned, train)
    rates = learning_rates(phase, steps)
    display = Display(phase.title, steps=steps, epochs=epochs, verbose=run.verbose)
    epoch = _Epoch(run, planned, part, choice, rates, display)
    measure = _measure(run, part, validation)
    before = remember(choice)
    run.model.stop_training = False
    _restart_patience(run.callbacks)
    try:
        for number in range(1, epochs + 1):
            started = time.monotonic()
            with run.rate.heeding_callbacks(rates[min(epoch.done, steps - 1)]):
                run.callbacks.on_epoch_begin(run.epoch)
            epoch.train(train)
            last = epoch.done >= steps or number == epochs or run.model.stop_training
            # Before callbacks, some of which put back earlier weights.
            if last or _has_callbacks(run.callbacks):
                proof = prove(before, phase=phase.title)
            logs = run.meters.results() | measure()
            with run.rate.heeding_callbacks(rates[epoch.done - 1]):
                run.callbacks.on_epoch_end(run.epoch, logs)
            run.epoch += 1
            display.epoch(number, logs, time.monotonic() - started)
            if epoch.done >= steps or run.model.stop_training:
                break
    finally:
        display.close()
    seconds = time.monotonic() - began
    return PhaseResult(proof, run.epoch - first_epoch, seconds)


def set_trainable(model: keras.Model, planned: PhasePlan) -> Choice:
    """Freezes and thaws for a phase, and sees that it came out as planned."""
    phase = planned.phase
    choice = choose(model, phase)
    if find_encoder(model) is not None:
        train = list(phase.train) if isinstance(phase.train, tuple) else phase.train
        freeze(model, train=train, batch_norm=phase.batch_norm)
    trainable = {id(variable) for variable in model.trainable_weights}
    if trainable != {id(variable) for variable in choice.trained}:
        raise TrainingError(
            f"What is trainable in phase {phase.title!r} is not what was planned: "
            f"{len(trainable):,} variables instead of {len(choice.trained):,}. Layers "
            "that change `trainable` themselves cannot be planned."
        )
    return choice


def _length(planned: PhasePlan, train: Feed) -> tuple[int, int]:
    """How many steps and epochs a phase has."""
    phase = planned.phase
    if phase.steps is not None:
        if train.steps is None:  # at most, with one batch in an epoch
            return phase.steps, phase.steps
        return phase.steps, math.ceil(phase.steps / train.steps) or 1
    if train.steps == math.inf:
        raise PlanError(
            f"The training data never ends, so {phase!r} would not either. Say how "
            "many batches: Phase(…, steps=1000)."
        )
    return phase.epochs * train.steps, phase.epochs


def _has_callbacks(callbacks: keras.callbacks.CallbackList) -> bool:
    plain = keras.callbacks.History
    return any(not isinstance(callback, plain) for callback in callbacks.callbacks)


def _restart_patience(callbacks: keras.callbacks.CallbackList) -> None:
    """Lets early stopping wait anew in every phase; what was best stays the best."""
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.wait = 0


class _Epoch:
    """Trains for one epoch after the other of a phase."""

    def __init__(self, run: Run, planned: PhasePlan, part, choice, rates, display):
        self.run, self.planned, self.part = run, planned, part
        self.choice, self.rates, self.display = choice, rates, display
        self.done = 0
        self.step: Callable | None = None
        self.pending: list[tf.Tensor] = []
        self.watched = _watches_batches(run.callbacks)

    def train(self, feed: Feed) -> None:
        run = self.run
        dataset = hand_out(feed.batches(run.epoch), run.strategy)
        if self.step is None:
            self.step = self._make_step(dataset.element_spec)
        run.meters.reset()
        looked = time.monotonic()
        left = len(self.rates) - self.done
        for i, batch in enumerate(itertools.islice(dataset, left)):
            self._train_batch(i, batch)
            now = time.monotonic()
            if len(self.pending) >= _LOOK_EVERY or now - looked > 0.5:
                self._look()
                looked = now
            if run.model.stop_training:
                break
        self._look()
        if not self.done:
            raise DataError("The training data gave no batch.")

    def _make_step(self, signature) -> Callable:
        run, phase = self.run, self.planned.phase
        run.rate.begin_phase(phase.weight_decay)
        return make_train_step(
            self.part,
            self.choice.trained,
            optimizer=run.optimizer,
            objective=run.objective,
            meters=run.meters,
            strategy=run.strategy,
            signature=signature,
            added_loss=l2_sp_loss(run.published, self.choice.trained, phase.l2_sp),
        )

    def _train_batch(self, i: int, batch) -> None:
        run = self.run
        run.callbacks.on_train_batch_begin(i)
        run.rate.set(self.rates[self.done])
        self.pending.append(self.step(batch))
        self.done += 1
        logs = run.meters.results() if self.watched else None
        run.callbacks.on_train_batch_end(i, logs)

    def _look(self) -> None:
        """Reads the losses since the last look; each read waits for the device."""
        if not self.pending:
            return
        losses = np.array([float(loss) for loss in self.pending])
        wrong = np.flatnonzero(~np.isfinite(losses))
        if wrong.size:
            step = self.done - len(losses) + int(wrong[0]) + 1
            raise TrainingError(
                f"The loss became {losses[wrong[0]]} at step {step:,} of phase "
                f"{self.planned.phase.title!r}, with learning rate "
                f"{self.rates[step - 1]:.3g}. Lower the learning rate, add warm-up, or "
                "look for numbers in the data that are not finite. The weights of the "
                "model are spoiled: load them anew."
            )
        self.display.step(losses[-1], len(losses))
        self.pending.clear()


def _watches_batches(callbacks: keras.callbacks.CallbackList) -> bool:
    """Whether any callback wants the figures of every batch."""
    plain = keras.callbacks.Callback
    return any(
        getattr(callback, name).__func__ is not getattr(plain, name)
        if hasattr(getattr(callback, name), "__func__")
        else True
        for callback in callbacks.callbacks
        for name in ("on_train_batch_end", "on_batch_end")
    )


def _measure(run: Run, part, validation: Feed | None) -> Callable[[], dict[str, float]]:
    """A function that measures on the validation data."""
    if validation is None:
        return dict
    made: list[Callable] = []

    def measure() -> dict[str, float]:
        dataset = hand_out(validation.batches(None), run.strategy)
        if not made:
            made.append(
                make_test_step(
                    part,
                    objective=run.objective,
                    meters=run.meters,
                    strategy=run.strategy,
                    signature=dataset.element_spec,
                )
            )
        run.meters.reset()
        run.callbacks.on_test_begin()
        for i, batch in enumerate(dataset):
            run.callbacks.on_test_batch_begin(i)
            made[0](batch)
            run.callbacks.on_test_batch_end(i)
        run.callbacks.on_test_end(run.meters.results())
        return run.meters.results("val_")

    return measure


def hand_out(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """Splits batches over replicas, filled up so that each gets as many examples.

    Args:
        dataset: Elements `(inputs, labels, weights)`.
        strategy: Where they go.

    Returns:
        Elements `(inputs, labels, weights, present)`: `present` is 0 for examples that
        only fill up, and () with a single replica, where none do.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        one = dataset.map(lambda *batch: (*batch, ()))
        return one.prefetch(tf.data.AUTOTUNE)
    filled = dataset.map(lambda *batch: _fill(batch, replicas))
    return strategy.experimental_distribute_dataset(filled)


def _fill(batch, replicas: int):
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    rows = tf.range(-(-count // replicas) * replicas)
    batch = tf.nest.map_structure(lambda t: tf.gather(t, rows % count), batch)
    return (*batch, tf.cast(rows < count, tf.float32))
