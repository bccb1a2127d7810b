"""The loop: a phase, epoch by epoch, with Keras's callbacks around it."""

from __future__ import annotations

import math
import time

import keras

from ..encoders import find_encoder, freeze
from ..errors import PlanError, TrainingError
from .checkpoints.saver import Saver
from .feeds.feed import Feed
from .loop.display import Display
from .loop.epoch import PROVED_AFTER, Trainer, make_measure
from .loop.frozen_check import Proof, prove, remember
from .loop.l2_sp import l2_sp_loss
from .loop.patience import Patience
from .loop.replica_state import make_merge
from .loop.run import PhaseResult, Run
from .loop.step import TrainSteps
from .loop.update import make_update
from .loop.xla_check import check_compilable
from .plans.layer_decay import rate_factors
from .plans.plan import PhasePlan
from .plans.schedules import learning_rates
from .plans.trainable_selection import Choice, choose
from .strategies.workers import agree, any_of


def run_phase(
    run: Run,
    planned: PhasePlan,
    part: keras.Model,
    train: Feed,
    validation: Feed | None,
    saver: Saver,
) -> PhaseResult:
    """Trains for one phase, from wherever the run's position is in it.

    Args:
        run: The run, which is written to.
        planned: The phase.
        part: What is trained: the whole model, or its top where the feeds hold the
            features of the rest.
        train: The examples to train on, in the form that `part` takes.
        validation: The examples to measure with after each epoch, likewise.
        saver: Writes checkpoints.

    Returns:
        What happened.

    Raises:
        TrainingError: A gradient is not finite, or a frozen variable moved.
    """
    began = time.monotonic()
    phase, position = planned.phase, run.position
    choice = set_trainable(run.model, planned)
    updates, epochs = phase_length(planned, train, run.accumulation)
    if not position.phase_epochs and not position.batches:
        run.before = remember(choice)
        _restart_patience(run.callbacks)
    averaged = [run.averages.by_id[id(v)] for v in choice.trained if run.averages.by_id]
    patience = Patience(phase.patience, [*choice.trained, *choice.free, *averaged])
    merge = make_merge(run.setting.strategy, choice.free)
    saver.begin_phase(choice, patience, merge)
    display = Display(
        phase.title,
        steps=updates,
        epochs=epochs,
        done=position.updates,
        verbose=run.verbose,
    )
    steps = make_steps(run, planned, part, choice)
    rates = learning_rates(phase, updates)
    proofs: list[Proof] = []

    def look() -> None:
        """Between two calls: are only planned weights moving, is a checkpoint due?"""
        if not proofs and position.updates >= min(PROVED_AFTER, updates):
            proofs.append(prove(run.before, phase=phase.title))
        saver.save_if_due()

    trainer = Trainer(
        run, steps, rates, title=phase.title, display=display, after_call=look
    )
    measure = make_measure(run, part, validation)
    run.model.stop_training = False
    # With batches of an epoch behind it, that epoch's end is still to come.
    over = position.updates >= updates or position.phase_epochs >= epochs
    over = over and not position.batches
    try:
        while not over:
            started = time.monotonic()
            _begin_epoch(run, rates)
            trainer.train(train)
            merge()
            # Before callbacks, some of which put back earlier weights.
            proofs.append(prove(run.before, phase=phase.title, missing=steps.missing))
            logs = _end_epoch(run, measure, rates[position.updates - 1])
            position.next_epoch()
            display.epoch(position.phase_epochs, logs, time.monotonic() - started)
            over = position.updates >= updates or position.phase_epochs >= epochs
            over |= patience.worn_out(logs) or run.model.stop_training
            if not over:
                saver.save_if_due()
    finally:
        display.close()
    patience.put_back()
    if not proofs:  # resumed at the very end
        proofs.append(prove(run.before, phase=phase.title))
    seconds = saver.seconds_before + time.monotonic() - began
    return PhaseResult(proofs[-1], position.phase_epochs, seconds)


def set_trainable(model: keras.Model, planned: PhasePlan) -> Choice:
    """Freezes and thaws for a phase, and sees that it came out as planned."""
    phase = planned.phase
    choice = choose(model, phase)
    if find_encoder(model) is not None:
        train = list(phase.train) if isinstance(phase.train, tuple) else phase.train
        norms, dropout = phase.batch_norm, phase.dropout
        freeze(model, train=train, batch_norm=norms, dropout=dropout)
    trainable = {id(variable) for variable in model.trainable_weights}
    if trainable != {id(variable) for variable in choice.trained}:
        raise TrainingError(
            f"What is trainable in phase {phase.title!r} is not what was planned: "
            f"{len(trainable):,} variables instead of {len(choice.trained):,}. Layers "
            "that change `trainable` themselves cannot be planned."
        )
    return choice


def phase_length(planned: PhasePlan, train: Feed, accumulation: int) -> tuple[int, int]:
    """How many updates and epochs a phase has."""
    phase = planned.phase
    if phase.steps is not None:
        if train.steps is None:  # at most, with one batch in an epoch
            return phase.steps, phase.steps
        return phase.steps, math.ceil(phase.steps / _updates(train, accumulation)) or 1
    if train.steps == math.inf:
        raise PlanError(
            f"The training data never ends, so {phase!r} would not either. Say how "
            "many batches: Phase(…, steps=1000)."
        )
    return phase.epochs * _updates(train, accumulation), phase.epochs


def _updates(train: Feed, accumulation: int) -> int | float:
    endless = train.steps == math.inf
    return math.inf if endless else math.ceil(train.steps / accumulation)


def make_steps(run: Run, planned: PhasePlan, part, choice: Choice) -> TrainSteps:
    """Makes a phase's step functions, for what is trainable now."""
    phase = planned.phase
    if run.setting.jit_compile:
        check_compilable(run.model, choice)
    run.rate.begin_phase(phase.weight_decay)
    update = make_update(
        run.setting.optimizer,
        choice.trained,
        factors=rate_factors(run.model, choice, phase.layer_decay),
        averages=run.averages,
    )
    return TrainSteps(
        part,
        choice.trained,
        setting=run.setting,
        update=update,
        added_loss=l2_sp_loss(run.published, choice.trained, phase.l2_sp),
        whole=run.model,
    )


def _begin_epoch(run: Run, rates) -> None:
    position, factor = run.position, run.rate.factor
    with run.rate.heeding_callbacks(rates[min(position.updates, len(rates) - 1)]):
        run.callbacks.on_epoch_begin(position.epoch)
    _agree(run)
    if position.batches:  # resumed inside an epoch, whose beginning was heeded before
        run.rate.factor = factor
    else:
        run.setting.meters.reset()


def _end_epoch(run: Run, measure, rate: float) -> dict[str, float]:
    with run.averages.shown():
        logs = run.setting.meters.results() | measure()
        with run.rate.heeding_callbacks(rate):
            run.callbacks.on_epoch_end(run.position.epoch, logs)
    _agree(run)
    return logs


def _agree(run: Run) -> None:
    """Has all workers do what the callbacks of any of them, or of the chief, want."""
    strategy = run.setting.strategy
    (run.rate.factor,) = agree(strategy, [float(run.rate.factor)])
    run.model.stop_training = any_of(strategy, run.model.stop_training)


def _restart_patience(callbacks: keras.callbacks.CallbackList) -> None:
    """Lets early stopping wait anew in every phase; what was best stays the best."""
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping):
            callback.wait = 0
