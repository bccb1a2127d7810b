"""`fit`: trains a model on data by a schedule, and returns a report."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import reports
from ..data import Augmentation, Splits
from ..encoders import find_encoder
from ..files import user_path
from .activations.cached_activations import CachedActivations
from .arguments import (
    accumulation_steps,
    build,
    count_feeds,
    feed_options,
    first_position,
    resolve_phases,
    updates_per_epoch,
)
from .checkpoints.checkpoint_files import latest
from .checkpoints.fingerprint import fingerprint
from .checkpoints.saver import (
    Checkpoints,
    Saver,
    check_directory,
    check_same_everywhere,
)
from .data_arguments import DataArguments, make_feeds
from .evaluation import final_evaluation
from .feeds.data_errors import naming_data_errors
from .feeds.fit_inputs import input_notes
from .keras_contract import check_contract
from .loop.compiled_model import asks_for_xla, reads_inputs
from .loop.display import print_line
from .loop.interrupts import Interrupts
from .loop.optimizer import finalize, has_schedule
from .loop.run import Run
from .loop.update_counts import counted_updates
from .phase_loop import run_phase
from .plans.cache_plan import ActivationCache, cache_options, is_cacheable
from .plans.plan import Plan, make_plan
from .plans.schedules import Phase
from .repeated_fits import fit_count, seed_of_fit, set_fit_count
from .run_report import make_folder, make_report, write_plan
from .run_setup import (
    call_size,
    compile_arguments,
    compiled_for_run,
    make_run,
)
from .strategies.scope_copies import model_in_scope
from .strategies.strategies import check_batch_size, find_placement, is_tpu
from .strategies.workers import is_chief, naming_lost_workers

_DEFAULT_CHECKPOINTS = Checkpoints()


@naming_data_errors()
def fit(
    model: keras.Model,
    x: Splits | tf.data.Dataset | Any,
    y: Any = None,
    *,
    schedule: Phase | Sequence[Phase] | None = None,
    strategy: str | tf.distribute.Strategy | None = None,
    directory: str | os.PathLike | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    shuffle: bool = True,
    sample_weight: Any = None,
    validation_data: Any = None,
    validation_split: float = 0.0,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    callbacks: keras.callbacks.Callback | Sequence[Any] | None = None,
    class_weight: Mapping[int | str, float] | str | None = None,
    augmentation: Augmentation | None = None,
    optimizer: keras.optimizers.Optimizer | str | None = None,
    loss: keras.losses.Loss | Callable | str | None = None,
    metrics: Sequence[Any] | None = None,
    seed: int = 0,
    gradient_accumulation_steps: int | None = None,
    ema: float = 0.0,
    jit_compile: bool | None = None,
    steps_per_execution: int | None = None,
    cache: bool | str | ActivationCache = "auto",
    resume: bool = False,
    checkpoints: Checkpoints = _DEFAULT_CHECKPOINTS,
    verbose: int | str = 1,
) -> reports.Report:
    """Trains a model phase by phase.

    The output of the frozen blocks at the beginning of the encoder is computed once and
    cached, if every epoch has the same examples (as `Splits` and arrays do; a dataset
    of your own may not). The plan's row `cached` shows the last cached block or part:
    `layer_3.1` is part 1 of the block `layer_3`. After the first updates of a phase and
    after each epoch, `fit` verifies that no frozen weight has changed.

    Args:
        model: A model of `tlkit`, or any Keras model, with one or several outputs. Its
            own `compute_loss` is called; a class that overrides `train_step` or another
            method that this loop does not call is refused (see
            `tlkit.training.keras_contract`).
        x: Data from `tlkit.data`; or what Keras's `fit` takes: arrays, tables of pandas
            and nests of them (float64 becomes float32; large arrays, also of
            `numpy.load(…, mmap_mode="r")`, are read when they are needed and must not
            change meanwhile); or batches of `(inputs, labels)` or `(inputs, labels,
            weights)` from a `tf.data.Dataset`, a generator, a `keras.utils.PyDataset`
            or a `DataLoader`. For a model of `tlkit`, arrays and texts are raw
            examples, and a dict of arrays holds inputs. All workers must get the same
            batches of a dataset of your own: seed its `shuffle`.
        y: The labels of arrays and texts, as indices, names, one-hot rows or numbers; a
            nest of arrays for several outputs.
        schedule: The phases. Default: `head_then_all()` for a model of `tlkit`, else
            one phase with a constant learning rate that trains the weights that the
            model leaves trainable.
        strategy: A name for `tlkit.strategy`, a strategy, or `None` for the one in
            whose scope the model was built. A model from outside its scope is copied
            into it, and its trained weights are copied back.
        directory: The run's folder for `report.json`, `plan.txt` and `checkpoints`.
            Files of these names are replaced, others are not touched. Several workers
            need one that all of them can read.
        batch_size: Examples in a batch over all replicas and workers; data in batches
            has its own size. Default: 32; for arrays with `steps_per_epoch`, the size
            that makes so many batches.
        epochs: Epochs of the last or only phase of the default schedule.
        initial_epoch: The index of the first epoch, to continue a schedule of one
            phase, whose `epochs` include the epochs before.
        steps_per_epoch: Batches in an epoch; the next epoch goes on with the batches
            after them. It must divide the data's batches. Needed for a generator.
        shuffle: Whether the examples are shuffled in every epoch; of a `PyDataset`, the
            batches. Datasets, generators and loaders keep their order.
        sample_weight: Weights of the examples of arrays, `[n]` or, for outputs in time,
            `[n, steps]`; a nest like `y` for several outputs.
        validation_data: `(x, y)`, `(x, y, weights)` or batches like `x`, which are
            evaluated after each epoch. Default: the validation split, if there is one.
        validation_split: The last fraction of arrays, which is not trained on but
            evaluated after each epoch.
        validation_steps: The number of validation batches, the same in every epoch.
            Default: all. Needed for a generator.
        validation_batch_size: Examples in a validation batch. Default: `batch_size`.
        validation_freq: Epochs from one evaluation to the next, or a list of the epochs
            (from 1) after which to evaluate. A phase's patience counts evaluations.
        callbacks: Keras callbacks. `model.stop_training` ends the phase, and the next
            one begins; the waiting times of `EarlyStopping` and `ReduceLROnPlateau` are
            reset then. A rate that a callback assigns to
            `model.optimizer.learning_rate`, as `LearningRateScheduler` does, replaces
            the planned rates, warm-up and decay too, until a callback assigns another
            one or the phase ends. A reduction by `ReduceLROnPlateau` multiplies the
            planned rates of the rest of the phase.
        class_weight: Factors on the weights of examples by index or name of the label,
            1 for the others; or `"balanced"`, as in scikit-learn: examples / (classes *
            examples of the class).
        augmentation: Random changes of training images, such as
            `tlkit.data.Augmentation()`, for models of `tlkit.image_classifier` and
            images from `tlkit.data` or in arrays; other data can be blended only (MixUp
            and CutMix). They are cached only if `cache` has `views`.
        optimizer: Default: that of the model's `compile`, or AdamW. Its state lasts
            through all phases, and through further calls of `fit`, which add the slots
            of further variables. But a copy is trained, whose state is lost, if the
            optimizer is not in the strategy's scope or accumulates gradients itself.
            The schedule sets its learning rate, unless it has a `LearningRateSchedule`
            of its own, which then holds for all phases.
        loss: A loss in any form that `compile` takes, for several outputs a list or
            dict. Default: that of the model's `compile` with its `loss_weights`, or of
            the task.
        metrics: Metrics in any form that `compile` takes. Default: those of the model's
            `compile` with its `weighted_metrics`, or of the task. The history also
            contains the metrics of the model and its layers.
        seed: Decides the order of the examples, different in every epoch, their
            augmentation and dropout. A second `fit` of the same model object continues
            with other random numbers; the same program, run again, repeats them all.
        gradient_accumulation_steps: Batches in one update of the weights, at least 1;
            the last update of an epoch may have fewer. Default: that of the optimizer,
            or 1.
        ema: If not 0, the model is evaluated with moving averages of its weights after
            each epoch, and has them at the end. It is the fraction of an average that
            an update keeps, in (0, 1), such as 0.999.
        jit_compile: Whether XLA compiles the steps. Batches and texts are then padded
            to one size. Default: whether `compile(jit_compile=True)` was called; its
            default `"auto"`, by which Keras uses XLA on GPUs, means no here.
        steps_per_execution: Updates in one call of TensorFlow, 1 to 256. Default: that
            of the model's `compile` if it is above 1, else as many as take a quarter of
            a second; 1 with a callback on every batch, with several workers, with
            `run_eagerly`, or if Keras has to apply the optimizer.
        cache: Where to cache the output of frozen blocks: `"memory"`, `"disk"`,
            `"auto"` to choose whether and where by cost, `False`, or a
            `tlkit.ActivationCache` with more options. On a TPU nothing is cached.
        resume: Whether to continue from the last checkpoint in `directory`, if there is
            one; on another strategy too. Phases that have not begun may be changed, and
            phases may be added. The last phase that has begun may get more `epochs` or
            `steps`: if its learning rate is constant, without warm-up, the weights are
            those of a run that had this schedule from the start; otherwise the rate
            goes on at its place on the longer curve. A phase that has restored its best
            weights (`patience`) goes on from these, and one whose `steps` ended within
            an epoch goes on with the next epoch.
        checkpoints: When to write checkpoints into `directory`, in addition to those
            after each phase and after Ctrl-C or SIGTERM, and how many to keep.
        verbose: 0 for silence, 1 or "auto" for the plan and progress, on stderr.

    Returns:
        The report, which contains Keras's `history`.

    Raises:
        PlanError: The schedule does not fit the model.
        DataError: The data is invalid, such as a label that the model does not have.
        TrainingError: A gradient is not finite, a frozen variable changed, the device
            does not exist, the checkpoint is of another job, or the loop would not call
            something that a Keras class overrides.

    Example:

    ```python
    model = tlkit.text_classifier(tlkit.samples.encoder("minilm"), splits.labels)
    report = tlkit.fit(model, splits, schedule=tlkit.head_only(), directory="runs/1")
    report.history["val_accuracy"][-1]  # 0.91
    ```
    """
    began = time.monotonic()
    if directory is not None:
        # Absolute, since a callback may change the working directory.
        directory = user_path(directory).absolute()
    check_directory(directory, checkpoints, resume=resume)
    checkpoint = latest(directory) if resume else None
    fits = fit_count(model)
    if checkpoint is not None:  # checkpoints of tlkit 0.1 do not contain the count
        fits = checkpoint.state["facts"].get("fits", 0)
    # First of all: a missing device is an error before any data is read.
    placement = find_placement(model, strategy)
    jit_compile = asks_for_xla(model) if jit_compile is None else jit_compile
    static = jit_compile or is_tpu(placement.strategy)
    data = DataArguments(
        x,
        y,
        sample_weight=sample_weight,
        class_weight=class_weight,
        validation_data=validation_data,
        validation_split=validation_split,
        validation_steps=validation_steps,
        validation_batch_size=validation_batch_size,
        validation_freq=validation_freq,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        initial_epoch=initial_epoch,
    )
    verbose = 1 if verbose == "auto" else verbose
    options = feed_options(
        model,
        batch_size=batch_size,
        seed=seed_of_fit(seed, fits),
        shuffle=shuffle,
        fixed_length=static,
        augmentation=augmentation,
        verbose=verbose,
    )
    feeds = make_feeds(model, data, options, loss=loss)
    batch_size = feeds[0].batch_size or options.batch_size
    check_batch_size(batch_size, placement.strategy)
    build(model, feeds[0])
    arguments = compile_arguments(model, optimizer, loss, metrics)
    callbacks = [c for c in keras.tree.flatten(callbacks) if c is not None]
    check_contract(model, arguments, callbacks)
    phases = resolve_phases(model, schedule, epochs, arguments.optimizer)
    accumulation = accumulation_steps(arguments.optimizer, gradient_accumulation_steps)
    train, validation = count_feeds(feeds, phases, accumulation)
    position = first_position(phases, train, accumulation, initial_epoch)
    # On a TPU, cached activations would be computed by its host, which is slow.
    uncached = is_tpu(placement.strategy) or reads_inputs(model)
    settings = None if uncached else cache_options(cache)
    plan = make_plan(
        model,
        phases,
        updates=updates_per_epoch(train, accumulation),
        cache=settings if is_cacheable(train, validation, settings) else None,
        examples=train.examples,
        tokens=None if train.lengths is None else float(train.lengths.each.mean()),
        own_schedule=arguments.optimizer is not None
        and has_schedule(arguments.optimizer),
    )
    check_same_everywhere(placement.strategy, directory)
    chief = is_chief(placement.strategy)
    folder = make_folder(directory if chief else None)
    with (
        model_in_scope(model, placement) as scoped_model,
        Interrupts(directory is not None) as interrupts,
        compiled_for_run(
            scoped_model, plan, train, arguments, placement.strategy
        ) as optimizer,
    ):
        run = make_run(
            scoped_model,
            plan,
            train,
            optimizer=optimizer,
            strategy=placement.strategy,
            interrupts=interrupts,
            callbacks=callbacks,
            accumulation=accumulation,
            ema=ema,
            jit_compile=jit_compile,
            static_shapes=static,
            call_size=call_size(arguments, steps_per_execution),
            seed=seed_of_fit(seed, fits),
            verbose=verbose if chief else 0,
            chief=chief,
        )
        run.position, run.validates = position, data.validates
        if run.verbose:
            print_line(str(plan))
            caches = settings is not None and find_encoder(model) is not None
            for note in input_notes(train, validation, caches=caches):
                print_line(note)
        facts = {}
        if directory is not None:
            facts = fingerprint(
                run.model,
                phases,
                train,
                optimizer=run.settings.optimizer,
                loss=arguments.loss,
                loss_weights=arguments.loss_weights,
                seed=seed,
                batch_size=batch_size,
                class_weight=class_weight,
                gradient_accumulation_steps=accumulation,
                ema=ema,
                augmentation=str(augmentation),
                shuffle=bool(shuffle),
                fits=fits,
            )
        saver = Saver(run, directory, checkpoints, facts, len(phases))
        with naming_lost_workers(placement.strategy):
            if checkpoint is not None:
                saver.check(checkpoint)
            if folder is not None:  # after `check`, which rejects another job's folder
                write_plan(folder, plan)
            set_fit_count(model, fits + 1)
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


def _train(
    run: Run, plan: Plan, activations: CachedActivations, saver: Saver
) -> dict[str, reports.Evaluation]:
    """Trains all phases from the run's position on; returns the final evaluations."""
    with (
        run.learning_rate.open_to_callbacks(run.callbacks.callbacks),
        counted_updates(run.settings.optimizer),
    ):
        _train_phases(run, plan, activations, saver)
    if activations.feeds[1] is None:
        return {}
    part, (_, validation) = activations.smallest_part()
    return final_evaluation(run, part, validation)


def _train_phases(
    run: Run, plan: Plan, activations: CachedActivations, saver: Saver
) -> None:
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
