"""Trains one phase, epoch by epoch, with Keras's callbacks.

Tested in tests/training/test_moving.py and tests/training/test_callbacks.py.
"""

import math
import time

import keras
import numpy as np

from ..encoders import find_encoder, freeze
from ..errors import PlanError, TrainingError
from .checkpoints.saver import Saver
from .feeds.feed import Feed
from .loop.display import Display
from .loop.epoch import FIRST_CHECK_UPDATES, Trainer, make_validation
from .loop.frozen_check import FrozenCheck, WeightChecksums
from .loop.l2_sp import l2_sp_loss
from .loop.patience import Patience
from .loop.replica_state import make_statistics_merge
from .loop.run import PhaseResult, Run
from .loop.step import TrainSteps
from .loop.update import check_loss_scale, make_update
from .loop.xla_check import check_compilable
from .plans.layer_decay import rate_factors
from .plans.plan import PhasePlan
from .plans.schedules import learning_rates
from .strategies.workers import any_worker


def run_phase(
    run: Run,
    planned: PhasePlan,
    part: keras.Model,
    train: Feed,
    validation: Feed | None,
    saver: Saver,
) -> PhaseResult:
    """Trains a phase from the run's position to its end.

    Args:
        run: The run, whose state is updated.
        planned: The phase.
        part: The trained part of the model: all of it, or the remainder after a cut if
            the feeds contain cached activations.
        train: The training examples, as inputs of `part`.
        validation: The validation examples, likewise.
        saver: Writes checkpoints.

    Raises:
        TrainingError: A gradient is not finite, or a frozen variable changed.
    """
    began = time.monotonic()
    phase, position, model = planned.phase, run.position, run.model
    trained, free = planned.trained_weights(model), planned.free_weights(model)
    set_trainable(model, planned)
    updates, epochs = phase_length(planned, train, run.accumulation)
    if not position.is_in_phase:
        run.checksums = None
        _reset_waiting(run.callbacks)
        if position.phase:  # the first one keeps the rates that `on_train_begin` set
            run.learning_rate.reset()
    averages = [run.averages.by_id[id(v)] for v in trained if run.averages.by_id]
    patience = Patience(phase.patience, [*trained, *free, *averages])
    merge_statistics = make_statistics_merge(run.settings.strategy, free)
    saver.begin_phase(planned, patience, merge_statistics)
    if run.checksums is None:
        run.checksums = WeightChecksums(trained, planned.frozen_weights(model))
    display = Display(
        phase.title,
        steps=updates,
        epochs=epochs,
        done=position.updates,
        verbose=run.verbose,
    )
    steps = make_steps(run, planned, part)
    rates = learning_rates(phase, updates)
    checks: list[FrozenCheck] = []

    def after_call() -> None:
        if not checks and position.updates >= min(FIRST_CHECK_UPDATES, updates):
            checks.append(run.checksums.verify(phase=phase.title))
        check_loss_scale(run.settings.optimizer, phase=phase.title)
        saver.save_if_due()

    trainer = Trainer(
        run, steps, rates, title=phase.title, display=display, after_call=after_call
    )
    validate = make_validation(run, part, validation, saver.save_if_due)
    model.stop_training = False
    # A run that is resumed after an epoch's last batch still has to end that epoch.
    over = position.updates >= updates or position.phase_epochs >= epochs
    over = over and not position.batches
    try:
        while not over:
            started = time.monotonic()
            _begin_epoch(run, rates)
            trainer.train(train)
            merge_statistics()
            # Verified before callbacks run, since some of them restore earlier weights.
            checks.append(
                run.checksums.verify(phase=phase.title, missing=steps.missing)
            )
            logs = _end_epoch(run, validate, rates[position.updates - 1])
            position.next_epoch()
            display.epoch(position.phase_epochs, logs, time.monotonic() - started)
            over = position.updates >= updates or position.phase_epochs >= epochs
            if validation is None or run.validates(position.epoch - 1):
                over |= patience.is_exhausted(logs)
            over |= model.stop_training
            if not over:
                saver.save_if_due()
    finally:
        display.close()
    patience.restore_best()
    if not checks:  # the run was resumed at the end of the phase
        checks.append(run.checksums.verify(phase=phase.title))
    seconds = saver.seconds_before + time.monotonic() - began
    return PhaseResult(checks[-1], position.phase_epochs, seconds, position.updates)


def set_trainable(model: keras.Model, planned: PhasePlan) -> None:
    """Freezes and unfreezes a model for a phase.

    Raises:
        TrainingError: The trainable weights are not those of the plan.
    """
    phase = planned.phase
    if find_encoder(model) is not None:
        train = list(phase.train) if isinstance(phase.train, tuple) else phase.train
        freeze(model, train=train, batch_norm=phase.batch_norm, dropout=phase.dropout)
    trainable = {id(variable) for variable in model.trainable_weights}
    trained = {id(variable) for variable in planned.trained_weights(model)}
    if trainable != trained:
        raise TrainingError(
            f"The trainable variables of phase {phase.title!r} differ from the plan: "
            f"{len(trainable):,} instead of {len(trained):,}. Layers that change "
            "`trainable` themselves cannot be planned."
        )


def phase_length(planned: PhasePlan, train: Feed, accumulation: int) -> tuple[int, int]:
    """Returns the maximum numbers of updates and of epochs of a phase.

    Raises:
        PlanError: The data never ends, and the phase has no `steps`.
    """
    phase = planned.phase
    if phase.steps is None and train.steps == math.inf:
        raise PlanError(
            f"The training data never ends, so {phase!r} would not either. Give the "
            "number of batches: Phase(…, steps=1000)."
        )
    if phase.steps is not None and train.steps in (None, math.inf):
        epochs = 1 if train.steps else phase.steps
        return phase.steps, epochs
    updates = math.ceil(train.steps / accumulation)
    if phase.steps is not None:
        return phase.steps, math.ceil(phase.steps / updates)
    return phase.epochs * updates, phase.epochs


def make_steps(run: Run, planned: PhasePlan, part: keras.Model) -> TrainSteps:
    """Makes a phase's step functions for the current state of `trainable`."""
    phase, trained = planned.phase, planned.trained_weights(run.model)
    if run.settings.jit_compile:
        check_compilable(run.model, planned)
    run.learning_rate.begin_phase(phase.weight_decay)
    update = make_update(
        run.settings.optimizer,
        trained,
        factors=rate_factors(run.model, trained, phase.layer_decay),
        averages=run.averages,
    )
    return TrainSteps(
        part,
        trained,
        settings=run.settings,
        update=update,
        added_loss=l2_sp_loss(run.pretrained, trained, phase.l2_sp),
        whole=run.model,
    )


def _begin_epoch(run: Run, rates: np.ndarray) -> None:
    position, learning_rate = run.position, run.learning_rate
    state = learning_rate.state()
    learning_rate.show(rates[min(position.updates, len(rates) - 1)])
    run.callbacks.on_epoch_begin(position.epoch)
    _agree(run)
    if position.batches:  # resumed inside an epoch, whose rate is in the checkpoint
        learning_rate.set_state(state)
    else:
        run.settings.metrics.reset()


def _end_epoch(run: Run, validate, rate: float) -> dict[str, float]:
    with run.averages.swapped():
        logs = run.settings.metrics.results() | validate()
        run.learning_rate.show(rate)
        run.callbacks.on_epoch_end(run.position.epoch, logs)
    _agree(run)
    return logs


def _agree(run: Run) -> None:
    """Gives all workers the chief's learning rate, and stops all if any one stops."""
    strategy = run.settings.strategy
    run.learning_rate.agree(strategy)
    run.model.stop_training = any_worker(strategy, run.model.stop_training)


def _reset_waiting(callbacks: keras.callbacks.CallbackList) -> None:
    """Resets the waiting times of callbacks at a phase's start; keeps their best."""
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.wait = 0
        if isinstance(callback, keras.callbacks.ReduceLROnPlateau):
            callback.wait = callback.cooldown_counter = 0
