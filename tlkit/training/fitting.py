"""`fit`: a model, data and a schedule become a trained model and a report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import reports
from ..data import Augmentation, Splits
from .activations.cached_activations import Activations, final_evaluation
from .arguments import (
    accumulation_of,
    build,
    count_steps_for,
    feeds_for,
    options_for,
    phases_for,
    updates_of,
)
from .checkpoints.saver import Rules, Saver, check_rules, check_same_everywhere
from .loop.display import say
from .loop.interrupts import Interrupts
from .loop.optimizer import finalize
from .loop.run import Run
from .phase_loop import run_phase
from .plans.cache_plan import ActivationCache, cache_options, can_keep
from .plans.plan import Plan, make_plan
from .plans.schedules import Phase
from .run_report import make_folder, make_report, write_plan
from .run_setup import find_tools, job_facts, make_run, optimizer_lent
from .strategies.scope_copies import carry_back, carry_in
from .strategies.strategies import Place, check_batch_size, find_place, is_tpu
from .strategies.workers import is_chief, naming_lost_workers


def fit(
    model: keras.Model,
    x: Splits | tf.data.Dataset | Any,
    y: Any = None,
    *,
    schedule: Phase | Sequence[Phase] | None = None,
    strategy: str | tf.distribute.Strategy | None = None,
    directory: str | os.PathLike | None = None,
    batch_size: int = 32,
    epochs: int | None = None,
    validation_data: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    class_weight: Mapping[int | str, float] | None = None,
    augmentation: Augmentation | None = None,
    optimizer: keras.optimizers.Optimizer | str | None = None,
    loss: keras.losses.Loss | Callable | str | None = None,
    metrics: Sequence[Any] | None = None,
    seed: int = 0,
    gradient_accumulation_steps: int | None = None,
    ema: float = 0.0,
    jit_compile: bool = False,
    steps_per_execution: int | None = None,
    cache: bool | str | ActivationCache = "auto",
    resume: bool = False,
    checkpoint_steps: int | None = None,
    checkpoint_minutes: float | None = 10.0,
    checkpoint_keep: int = 2,
    verbose: int = 1,
) -> reports.Report:
    """Trains a model phase by phase.

    What frozen blocks give, from the beginning of the encoder to the first one that is
    trained, is computed once and kept, if the data is the same in each epoch (`Splits`
    and arrays are; a dataset of your own may not be). The plan's row `kept` says what:
    `layer_3.1` is what comes out of part 1 of the block `layer_3`. After each phase it
    is checked on the numbers that nothing frozen has moved.

    Args:
        model: A model of `tlkit`, or any Keras model with one loss.
        x: Data from `tlkit.data`; or what Keras's `fit` takes: arrays (float64 becomes
            float32; large ones, of `numpy.load(…, mmap_mode="r")` too, are read as
            they are needed and must not change meanwhile), or a batched
            `tf.data.Dataset` of `(inputs, labels)` or `(inputs, labels, weights)`. For
            a model of `tlkit`, arrays and texts are raw examples, and a dict of arrays
            holds inputs. Of a dataset of your own all workers must get the same
            batches: seed its `shuffle`.
        y: The labels of arrays and texts, as indices or names.
        schedule: The phases. Default: `head_then_all()` for a model of `tlkit`, else
            one phase that trains what the model leaves trainable, at a constant rate.
        strategy: A name for `tlkit.strategy`, a strategy, or `None` for the one in
            whose scope the model was built. A model from outside its scope is carried
            in, and what it learned is carried back.
        directory: The run's folder, which gets `report.json`, `plan.txt` and
            `checkpoints`; files of these names that are there already are replaced,
            all others are left alone. Several workers need one that all of them see.
        batch_size: Examples in a batch over all replicas and workers; a batched dataset
            brings its own.
        epochs: Epochs of the default schedule, or of its last phase.
        validation_data: `(x, y)` or a dataset like `x`, to measure with after each
            epoch. Default: the validation split, if there is one.
        callbacks: Keras callbacks. `model.stop_training` ends the phase, and the next
            one begins; `EarlyStopping` then waits anew.
        class_weight: Weights by index or name of the label; 1 for the others.
        augmentation: How the pictures to train on are changed at random, such as
            `tlkit.data.Augmentation()`. Nothing is kept of them then, unless `cache`
            says how many views of each.
        optimizer: Default: that of the model's `compile`, or AdamW. Its state is kept
            through all phases; its learning rate is the schedule's, unless it has a
            `LearningRateSchedule` of its own, which then holds for all phases.
        loss: Default: that of the model's `compile`, or of its task.
        metrics: Default: likewise.
        seed: Decides the order of the examples, for every epoch its own, and dropout.
        gradient_accumulation_steps: How many batches make one update of the weights,
            at least 1; the last update of an epoch may have fewer. Default: that of the
            optimizer, or 1.
        ema: If not 0, the model gets moving averages of its weights in the end, and is
            measured with them after each epoch: the share of an average that an update
            leaves, in (0, 1), such as 0.999.
        jit_compile: Whether XLA compiles the steps. Batches are then filled up, and
            texts padded, to one size.
        steps_per_execution: Updates in one call of TensorFlow, 1 to 256. Default: as
            many as take a quarter of a second; 1 if a callback looks at every batch,
            with several workers, or if Keras has to apply the optimizer.
        cache: Where to keep what frozen blocks give, so that it is computed once and
            not in each epoch: `"memory"`, `"disk"`, `"auto"` for what pays, `False`, or
            a `tlkit.ActivationCache` with more to say. On a TPU nothing is kept.
        resume: Whether to go on from the last checkpoint in `directory`, if there is
            one; on another strategy too.
        checkpoint_steps: Updates between two checkpoints. There is one after each
            phase, too, and after Ctrl-C.
        checkpoint_minutes: Minutes between two checkpoints, or `None`.
        checkpoint_keep: How many of the last checkpoints are kept, at least 1.
        verbose: 0 for silence, 1 for the plan and progress, on stderr.

    Returns:
        The report, with Keras's `history` in it.

    Raises:
        PlanError: The schedule does not fit the model.
        DataError: The data is not what it should be.
        TrainingError: A gradient is not finite, a frozen variable moved, the device is
            not there, or the checkpoint is of another job.

    Example:

    ```python
    model = tlkit.text_classifier(tlkit.samples.encoder("minilm"), splits.labels)
    report = tlkit.fit(model, splits, schedule=tlkit.head_only(), directory="runs/1")
    print(report.history["val_accuracy"])
    ```
    """
    began = time.monotonic()
    rules = Rules(directory, checkpoint_steps, checkpoint_minutes, checkpoint_keep)
    check_rules(rules, resume=resume)
    # First of all: what is missing is told before any data is read.
    place = find_place(model, strategy)
    static = jit_compile or is_tpu(place.strategy)
    options = options_for(
        model,
        batch_size=batch_size,
        seed=seed,
        fixed_length=static,
        augmentation=augmentation,
        verbose=verbose,
    )
    feeds = feeds_for(model, x, y, validation_data, class_weight, options)
    check_batch_size(batch_size, place.strategy)
    build(model, feeds[0])
    tools = find_tools(model, optimizer, loss, metrics)
    phases = phases_for(model, schedule, epochs, tools.optimizer)
    accumulation = accumulation_of(tools.optimizer, gradient_accumulation_steps)
    train, validation = count_steps_for(feeds, phases, accumulation)
    # What is kept would be computed on a TPU's host, which is slow.
    kept = None if is_tpu(place.strategy) else cache_options(cache)
    plan = make_plan(
        model,
        phases,
        batches=updates_of(train, accumulation),
        cache=kept if can_keep(train, kept) else None,
        examples=train.examples,
        tokens=None if train.lengths is None else float(train.lengths.each.mean()),
    )
    check_same_everywhere(place.strategy, directory)
    chief = is_chief(place.strategy)
    folder = make_folder(directory if chief else None)
    with carried(model, place) as inner, Interrupts(directory is not None) as signals:
        run = make_run(
            inner,
            phases,
            train,
            tools=tools,
            strategy=place.strategy,
            callbacks=callbacks,
            accumulation=accumulation,
            ema=ema,
            jit_compile=jit_compile,
            static_shapes=static,
            call_size=steps_per_execution,
            seed=seed,
            interrupts=signals,
            verbose=verbose if chief else 0,
            chief=chief,
        )
        if run.verbose:
            say(str(plan))
        facts = {}
        if directory is not None:
            others = {"class_weight": class_weight, "augmentation": str(augmentation)}
            facts = job_facts(run, phases, train, batch_size, **others)
        saver = Saver(run, rules, facts, len(phases))
        with naming_lost_workers(place.strategy):
            if resume:
                saver.find()
            if folder is not None:  # of another job, which was refused, it stays
                write_plan(folder, plan)
            activations = Activations(run, plan, (train, validation), kept)
            evaluations = _train(run, plan, activations, saver)
    report = make_report(
        run,
        plan,
        evaluations=evaluations,
        skipped=x.skipped if isinstance(x, Splits) else (),
        seed=seed,
        seconds=run.seconds + time.monotonic() - began,
    )
    if folder is not None:
        report.save(folder)
    return report


@contextlib.contextmanager
def carried(model: keras.Model, place: Place) -> Iterator[keras.Model]:
    """The model where it is to be trained; what it learned goes back in any case."""
    inner = carry_in(model, place.strategy) if place.carry else model
    try:
        with place.strategy.scope(), tf.device(place.device):
            yield inner
    finally:
        if place.carry:
            carry_back(inner, model)
        # Keras keeps a train function that was traced with another `trainable`.
        model.train_function = None


def _train(
    run: Run, plan: Plan, activations: Activations, saver: Saver
) -> dict[str, reports.Evaluation]:
    with optimizer_lent(run.model, run.setting.optimizer):
        run.callbacks.on_train_begin()
        saver.resume()
        while run.position.phase < len(plan.phases):
            planned = plan.phases[run.position.phase]
            part, feeds = activations.part_and_feeds(run.position.phase)
            run.results.append(run_phase(run, planned, part, *feeds, saver))
            if run.verbose:
                say(f"{planned.phase.title}: {run.results[-1].proof}")
            run.position.next_phase()
            saver.save(between_phases=True)
            saver.leave_if_asked()
        run.averages.exchange()
        finalize(run.setting.optimizer)
        run.callbacks.on_train_end({k: v[-1] for k, v in run.history.items()})
    return final_evaluation(run, activations)
