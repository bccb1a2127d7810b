"""`fit`: trains a model on data by a schedule, and returns a report."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import reports
from ..data import Augmentation, Splits
from ..files import user_path
from .activations.cached_activations import CachedActivations
from .arguments import (
    accumulation_steps,
    build,
    count_feeds,
    feed_options,
    make_feeds,
    resolve_phases,
    updates_per_epoch,
)
from .checkpoints.fingerprint import fingerprint
from .checkpoints.saver import (
    Checkpoints,
    Saver,
    check_directory,
    check_same_everywhere,
)
from .evaluation import final_evaluation
from .feeds.fit_inputs import input_notes
from .loop.display import print_line
from .loop.interrupts import Interrupts
from .loop.optimizer import finalize
from .loop.run import Run
from .phase_loop import run_phase
from .plans.cache_plan import ActivationCache, cache_options, is_cacheable
from .plans.plan import Plan, make_plan
from .plans.schedules import Phase
from .run_report import make_folder, make_report, write_plan
from .run_setup import (
    compile_arguments,
    make_run,
    optimizer_for_callbacks,
)
from .strategies.scope_copies import copy_into_scope, copy_out_of_scope
from .strategies.strategies import Placement, check_batch_size, find_placement, is_tpu
from .strategies.workers import is_chief, naming_lost_workers

_DEFAULT_CHECKPOINTS = Checkpoints()


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
    checkpoints: Checkpoints = _DEFAULT_CHECKPOINTS,
    verbose: int = 1,
) -> reports.Report:
    """Trains a model phase by phase.

    The output of the frozen blocks at the beginning of the encoder is computed once and
    cached, if every epoch has the same examples (as `Splits` and arrays do; a dataset
    of your own may not). The plan's row `cached` shows the last cached block or part:
    `layer_3.1` is part 1 of the block `layer_3`. After the first updates of a phase and
    after each epoch, `fit` verifies that no frozen weight has changed.

    Args:
        model: A model of `tlkit`, or any Keras model with one loss.
        x: Data from `tlkit.data`; or what Keras's `fit` takes: arrays (float64 becomes
            float32; large ones, also of `numpy.load(…, mmap_mode="r")`, are read when
            they are needed and must not change meanwhile), or a batched
            `tf.data.Dataset` of `(inputs, labels)` or `(inputs, labels, weights)`. For
            a model of `tlkit`, arrays and texts are raw examples, and a dict of arrays
            holds inputs. All workers must get the same batches of a dataset of your
            own: seed its `shuffle`.
        y: The labels of arrays and texts, as indices or names.
        schedule: The phases. Default: `head_then_all()` for a model of `tlkit`, else
            one phase with a constant learning rate that trains the weights that the
            model leaves trainable.
        strategy: A name for `tlkit.strategy`, a strategy, or `None` for the one in
            whose scope the model was built. A model from outside its scope is copied
            into it, and its trained weights are copied back.
        directory: The run's folder for `report.json`, `plan.txt` and `checkpoints`.
            Files of these names are replaced, others are not touched. Several workers
            need one that all of them can read.
        batch_size: Examples in a batch over all replicas and workers; a batched dataset
            has its own.
        epochs: Epochs of the default schedule, or of its last phase.
        validation_data: `(x, y)` or a dataset like `x`, which is evaluated after each
            epoch. Default: the validation split, if there is one.
        callbacks: Keras callbacks. `model.stop_training` ends the phase, and the next
            one begins; the waiting time of `EarlyStopping` is reset then.
        class_weight: Weights by index or name of the label; 1 for the others.
        augmentation: Random changes of training images, such as
            `tlkit.data.Augmentation()`. They are cached only if `cache` has `views`.
        optimizer: Default: that of the model's `compile`, or AdamW. Its state lasts
            through all phases. The schedule sets its learning rate, unless it has a
            `LearningRateSchedule` of its own, which then holds for all phases.
        loss: Default: that of the model's `compile`, or of its task.
        metrics: Default: likewise.
        seed: Decides the order of the examples, different in every epoch, and dropout.
        gradient_accumulation_steps: Batches in one update of the weights, at least 1;
            the last update of an epoch may have fewer. Default: that of the optimizer,
            or 1.
        ema: If not 0, the model is evaluated with moving averages of its weights after
            each epoch, and has them at the end. It is the fraction of an average that
            an update keeps, in (0, 1), such as 0.999.
        jit_compile: Whether XLA compiles the steps. Batches and texts are then padded
            to one size.
        steps_per_execution: Updates in one call of TensorFlow, 1 to 256. Default: as
            many as take a quarter of a second; 1 with a callback on every batch, with
            several workers, or if Keras has to apply the optimizer.
        cache: Where to cache the output of frozen blocks: `"memory"`, `"disk"`,
            `"auto"` to choose whether and where by cost, `False`, or a
            `tlkit.ActivationCache` with more options. On a TPU nothing is cached.
        resume: Whether to continue from the last checkpoint in `directory`, if there is
            one; on another strategy too.
        checkpoints: When to write checkpoints into `directory`, in addition to those
            after each phase and after Ctrl-C, and how many to keep.
        verbose: 0 for silence, 1 for the plan and progress, on stderr.

    Returns:
        The report, which contains Keras's `history`.

    Raises:
        PlanError: The schedule does not fit the model.
        DataError: The data is invalid.
        TrainingError: A gradient is not finite, a frozen variable changed, the device
            does not exist, or the checkpoint is of another job.

    Example:

    ```python
    model = tlkit.text_classifier(tlkit.samples.encoder("minilm"), splits.labels)
    report = tlkit.fit(model, splits, schedule=tlkit.head_only(), directory="runs/1")
    report.history["val_accuracy"][-1]  # 0.91
    ```
    """
    began = time.monotonic()
    if directory is not None:
        directory = user_path(directory).absolute()  # a callback may change folders
    check_directory(directory, checkpoints, resume=resume)
    # First of all: a missing device is an error before any data is read.
    placement = find_placement(model, strategy)
    static = jit_compile or is_tpu(placement.strategy)
    options = feed_options(
        model,
        batch_size=batch_size,
        seed=seed,
        fixed_length=static,
        augmentation=augmentation,
        verbose=verbose,
    )
    feeds = make_feeds(model, x, y, validation_data, class_weight, options)
    check_batch_size(batch_size, placement.strategy)
    build(model, feeds[0])
    optimizer, loss, metrics = compile_arguments(model, optimizer, loss, metrics)
    phases = resolve_phases(model, schedule, epochs, optimizer)
    accumulation = accumulation_steps(optimizer, gradient_accumulation_steps)
    train, validation = count_feeds(feeds, phases, accumulation)
    # On a TPU, cached activations would be computed by its host, which is slow.
    settings = None if is_tpu(placement.strategy) else cache_options(cache)
    plan = make_plan(
        model,
        phases,
        updates=updates_per_epoch(train, accumulation),
        cache=settings if is_cacheable(train, validation, settings) else None,
        examples=train.examples,
        tokens=None if train.lengths is None else float(train.lengths.each.mean()),
    )
    check_same_everywhere(placement.strategy, directory)
    chief = is_chief(placement.strategy)
    folder = make_folder(directory if chief else None)
    with (
        _model_in_scope(model, placement) as model_in_scope,
        Interrupts(directory is not None) as interrupts,
    ):
        run = make_run(
            model_in_scope,
            plan,
            train,
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            strategy=placement.strategy,
            interrupts=interrupts,
            callbacks=callbacks,
            accumulation=accumulation,
            ema=ema,
            jit_compile=jit_compile,
            static_shapes=static,
            call_size=steps_per_execution,
            seed=seed,
            verbose=verbose if chief else 0,
            chief=chief,
        )
        if run.verbose:
            print_line(str(plan))
            for note in input_notes(train, validation):
                print_line(note)
        facts = {}
        if directory is not None:
            facts = fingerprint(
                run.model,
                phases,
                train,
                optimizer=run.settings.optimizer,
                loss=run.settings.loss.keras_loss,
                seed=seed,
                batch_size=batch_size,
                class_weight=class_weight,
                gradient_accumulation_steps=accumulation,
                ema=ema,
                augmentation=str(augmentation),
            )
        saver = Saver(run, directory, checkpoints, facts, len(phases))
        with naming_lost_workers(placement.strategy):
            if resume:
                saver.find()
            if folder is not None:  # after `find`, which rejects another job's folder
                write_plan(folder, plan)
            activations = CachedActivations(run, plan, (train, validation), settings)
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
def _model_in_scope(model: keras.Model, placement: Placement) -> Iterator[keras.Model]:
    """Yields the model or its copy in the strategy's scope, then copies it back."""
    inner = copy_into_scope(model, placement.strategy) if placement.copy else model
    try:
        with placement.strategy.scope(), tf.device(placement.device):
            yield inner
    finally:
        if placement.copy:
            copy_out_of_scope(inner, model)
        # Keras would reuse a train function that was traced with another `trainable`.
        model.train_function = None


def _train(
    run: Run, plan: Plan, activations: CachedActivations, saver: Saver
) -> dict[str, reports.Evaluation]:
    """Trains all phases from the run's position on; returns the final evaluations."""
    with optimizer_for_callbacks(run.model, run.settings.optimizer):
        run.callbacks.on_train_begin()
        saver.resume()
        while run.position.phase < len(plan.phases):
            planned = plan.phases[run.position.phase]
            with saver.saving_if_interrupted():
                part, feeds = activations.part_and_feeds(run.position.phase)
            with run.interrupts.deferred():
                run.results.append(run_phase(run, planned, part, *feeds, saver))
                if run.verbose:
                    print_line(f"{planned.phase.title}: {run.results[-1].frozen_check}")
                run.position.next_phase()
                saver.save(between_phases=True)
                saver.leave_if_interrupted()
        with run.interrupts.deferred():
            run.averages.swap()
            finalize(run.settings.optimizer)
            run.callbacks.on_train_end({k: v[-1] for k, v in run.history.items()})
    if activations.feeds[1] is None:
        return {}
    part, (_, validation) = activations.smallest_part()
    return final_evaluation(run, part, validation)
