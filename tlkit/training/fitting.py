"""`fit`: a model, data and a schedule become a trained model and a report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import models, reports
from ..data import Splits
from ..encoders import find_encoder
from ..errors import DataError, PlanError, TrainingError
from .choosing import choose
from .collecting import collect
from .evaluation import evaluate_feed
from .inputs import Feed, Options, count_steps, make_feed, weigh_classes
from .loop import PhaseResult, Run, run_phase
from .objectives import Objective, compiled_metrics, resolve_metrics
from .planning import PhasePlan, Plan, make_plan
from .rates import Rate, build_optimizer, default_optimizer
from .schedules import Phase, check_schedule, head_then_all
from .showing import say
from .steps import Meters
from .strategies import place_of

PLAN_FILE = "plan.txt"


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
    optimizer: keras.optimizers.Optimizer | str | None = None,
    loss: keras.losses.Loss | Callable | str | None = None,
    metrics: Sequence[Any] | None = None,
    seed: int = 0,
    verbose: int = 1,
    cache: bool = True,
) -> reports.Report:
    """Trains a model phase by phase.

    Phases that train nothing of the encoder compute its features once and train the
    head on these, if the data is the same in each epoch (`Splits` and arrays are; a
    dataset of your own may not be). After each phase it is checked on the numbers
    that nothing frozen has moved.

    Args:
        model: A model of `tlkit`, or any Keras model with one loss.
        x: Data from `tlkit.data`; or what Keras's `fit` takes: arrays (float64 becomes
            float32), or a batched `tf.data.Dataset` of `(inputs, labels)` or
            `(inputs, labels, weights)`. For a model of `tlkit`, arrays and texts are
            raw examples, and a dict of arrays holds inputs.
        y: The labels of arrays and texts, as indices or names.
        schedule: The phases. Default: `head_then_all()` for a model of `tlkit`, else
            one phase that trains what the model leaves trainable, at a constant rate.
        strategy: A name for `tlkit.strategy`, a strategy in whose scope the model was
            built, or `None` for the one in whose scope this is called.
        directory: The run's folder, which gets `report.json` and `plan.txt`; files of
            these names that are there already are replaced, all others are left alone.
        batch_size: Examples in a batch over all replicas; a batched dataset brings its
            own.
        epochs: Epochs of the default schedule, or of its last phase.
        validation_data: `(x, y)` or a dataset like `x`, to measure with after each
            epoch. Default: the validation split, if there is one.
        callbacks: Keras callbacks. `model.stop_training` ends the phase, and the next
            one begins; `EarlyStopping` then waits anew.
        class_weight: Weights by index or name of the label; 1 for the others.
        optimizer: Default: that of the model's `compile`, or AdamW. Its state is kept
            through all phases.
        loss: Default: that of the model's `compile`, or of its task.
        metrics: Default: likewise.
        seed: Decides the order of the examples; every epoch has its own.
        verbose: 0 for silence, 1 for the plan and progress, on stderr.
        cache: Whether features may be computed once; they are kept in memory.

    Returns:
        The report, with Keras's `history` in it.

    Raises:
        PlanError: The schedule does not fit the model.
        DataError: The data is not what it should be.
        TrainingError: The loss is not finite any more, a frozen variable moved, or the
            model was built outside the strategy's scope.

    Example:

    ```python
    model = tlkit.text_classifier(tlkit.samples.encoder("minilm"), splits.labels)
    report = tlkit.fit(model, splits, schedule=tlkit.head_only(), directory="runs/1")
    print(report.history["val_accuracy"])
    ```
    """
    began = time.monotonic()
    place, device = place_of(model, strategy)
    options = options_for(model, batch_size=batch_size, seed=seed)
    train, validation = _feeds(model, x, y, validation_data, class_weight, options)
    _build(model, train)
    phases = _phases(model, schedule, epochs, optimizer)
    if any(phase.steps is None for phase in phases):
        train = count_steps(train)
    batches = train.steps if isinstance(train.steps, int) else None
    plan = make_plan(model, phases, batches=batches, cache=cache and train.repeats)
    folder = _prepare(directory, plan)
    if verbose:
        say(str(plan))
    with place.scope(), tf.device(device):
        run = _make_run(
            model, phases, train, optimizer, loss, metrics, place, callbacks
        )
        run.verbose = verbose
        results, evaluations = _train(run, plan, train, validation)
    report = _report(model, x, plan, run, results, evaluations, seed)
    report = dataclasses.replace(report, seconds=time.monotonic() - began)
    if folder is not None:
        report.save(folder)
    return report


def options_for(model: keras.Model, *, batch_size: int, seed: int = 0) -> Options:
    """How raw examples become a model's batches.

    Raises:
        DataError: `batch_size` is out of range.
    """
    whole = isinstance(batch_size, (int, np.integer)) and batch_size >= 1
    if not whole:
        raise DataError(f"batch_size must be 1 or more; got {batch_size!r}.")
    task = models.task_of(model)
    return Options(
        batch_size=int(batch_size),
        seed=seed,
        preprocess=models.preprocessing(model) if task is not None else None,
        label_index=task.label_index if task is not None else None,
    )


# === What goes in ===


def _feeds(model, x, y, validation_data, class_weight, options: Options):
    given = validation_data
    if isinstance(x, Splits):
        if y is not None:
            raise DataError("Splits bring their labels. Leave y out.")
        _check_labels(model, x)
        given = x.validation if given is None else given
        x = x.train
    train = weigh_classes(make_feed(x, y, None, options), class_weight, options)
    if given is None:
        return train, None
    if isinstance(given, tf.data.Dataset):
        return train, make_feed(given, None, None, options)
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise DataError(
            "validation_data must be (x, y), (x, y, weights) or a tf.data.Dataset. "
            f"Received: {type(given).__name__}."
        )
    weights = given[2] if len(given) == 3 else None
    return train, make_feed(given[0], given[1], weights, options)


def _check_labels(model: keras.Model, splits: Splits) -> None:
    task = models.task_of(model)
    if task is not None and tuple(task.labels) != tuple(splits.labels):
        raise DataError(
            "The model and the data must have the same labels in the same order. The "
            f"model has {list(task.labels)}, the data {list(splits.labels)}. Build the "
            "model with splits.labels."
        )


def _build(model: keras.Model, train: Feed) -> None:
    if not model.built:
        for inputs, *_ in train.batches(None).take(1):
            model(inputs)


def _phases(model, schedule, epochs, optimizer) -> tuple[Phase, ...]:
    if schedule is not None:
        if epochs is not None:
            raise PlanError(
                "A schedule says how many epochs each phase has. Leave epochs out, or "
                "write them into the schedule: tlkit.head_only(epochs=…)."
            )
        return check_schedule(schedule)
    if find_encoder(model) is not None:
        return tuple(head_then_all(**({} if epochs is None else {"epochs": epochs})))
    optimizer = _given_optimizer(model, optimizer)
    rate = 1e-3
    if optimizer is not None:
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    return (Phase("all", epochs=epochs, learning_rate=rate, decay="constant"),)


def _prepare(directory, plan: Plan) -> pathlib.Path | None:
    """Makes the run's folder, before anything is spent."""
    if directory is None:
        return None
    folder = pathlib.Path(directory).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{PLAN_FILE}.{os.getpid()}"
        beside.write_text(f"{plan}\n", encoding="utf-8")
        os.replace(beside, folder / PLAN_FILE)
    except OSError as error:
        raise TrainingError(
            f"The run's folder {folder} cannot be written: {error.strerror}. Give "
            "another directory=…"
        ) from error
    return folder


def _given_optimizer(model, optimizer) -> keras.optimizers.Optimizer | None:
    """The user's optimizer: the argument, or what the model was compiled with."""
    if optimizer is not None:
        return keras.optimizers.get(optimizer)
    return model.optimizer if model.compiled else None


def _make_run(
    model, phases, train, optimizer, loss, metrics, strategy, callbacks
) -> Run:
    wanted = {id(v) for phase in phases for v in choose(model, phase).trained}
    variables = [v for v in model.weights if id(v) in wanted]
    optimizer = _given_optimizer(model, optimizer) or default_optimizer(variables)
    build_optimizer(optimizer, variables)
    task = models.task_of(model)
    if loss is None:
        loss = model.loss if model.compiled else task and task.loss()
    if loss is None:
        raise TrainingError(
            "Nothing says which loss to train with. Give one: "
            'tlkit.fit(…, loss="sparse_categorical_crossentropy"), or model.compile '
            "the model."
        )
    if metrics is None:
        compiled = compiled_metrics(model)
        metrics = compiled or (task.metrics() if task is not None else [])
    labels, outputs = _specs(model, train)
    shown = getattr(model, "optimizer", None) or optimizer
    epochs = sum(p.epochs or 1 for p in phases)
    return Run(
        model=model,
        optimizer=optimizer,
        objective=Objective(loss),
        meters=Meters(resolve_metrics(metrics, labels, outputs)),
        strategy=strategy,
        callbacks=keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            model=model,
            epochs=epochs,
            steps=train.steps,
            verbose=0,
        ),
        rate=Rate(optimizer, shown),
    )


def _specs(model, train: Feed):
    """What the labels and the outputs look like, for metrics given by name."""
    inputs, labels, _ = train.batches(None).element_spec
    outputs = getattr(model, "outputs", None)
    if outputs:
        return labels, outputs[0]
    symbols = tf.nest.map_structure(
        lambda spec: keras.KerasTensor(spec.shape, spec.dtype.name), inputs
    )
    return labels, tf.nest.flatten(model.compute_output_spec(symbols))[0]


# === Training ===


def _train(run: Run, plan: Plan, train: Feed, validation: Feed | None):
    results, evaluations = [], {}
    kept: list[Feed | None] | None = None
    with _optimizer_shown(run):
        run.callbacks.on_train_begin()
        for i, planned in enumerate(plan.phases):
            part, feeds = run.model, [train, validation]
            if planned.cached:
                trunk, part = models.split(run.model)
                if kept is None:
                    kept = _features(trunk, feeds, run)
                feeds = kept
            else:
                kept = None  # the encoder is about to change
            results.append(run_phase(run, planned, part, *feeds))
            if run.verbose:
                say(f"{planned.phase.title}: {results[-1].proof}")
            if i == len(plan.phases) - 1 and feeds[1] is not None:
                evaluations = _final(run, part, feeds[1])
        run.callbacks.on_train_end({k: v[-1] for k, v in run.history.items() if v})
    # Keras keeps a train function that was traced with another `trainable`.
    run.model.train_function = None
    return results, evaluations


def _features(trunk, feeds: Sequence[Feed | None], run: Run) -> list[Feed | None]:
    """The same feeds, with features instead of inputs."""
    names = ("computing features", "computing features of the validation data")
    return [
        feed and feed.from_table(collect(trunk, feed, what=what, verbose=run.verbose))
        for feed, what in zip(feeds, names, strict=True)
    ]


def _final(run: Run, part, validation: Feed) -> dict[str, reports.Evaluation]:
    """What the report says of the validation data, if it is a classification."""
    if models.task_of(run.model) is None:
        return {}
    return {
        "validation": evaluate_feed(
            run.model, part, validation, run.objective, verbose=run.verbose
        )
    }


@contextlib.contextmanager
def _optimizer_shown(run: Run) -> Iterator[None]:
    """Gives callbacks a `model.optimizer` where the model has none."""
    if getattr(run.model, "optimizer", None) is not None:
        yield
        return
    run.model.optimizer = run.optimizer
    try:
        yield
    finally:
        del run.model.optimizer


# === What comes out ===


def _report(
    model, x, plan: Plan, run: Run, results: Sequence[PhaseResult], evaluations, seed
) -> reports.Report:
    return reports.Report(
        history=run.history,
        phases=tuple(
            _phase_report(plan, planned, result, first)
            for planned, result, first in zip(
                plan.phases, results, _firsts(results), strict=True
            )
        ),
        evaluations=evaluations,
        skipped=x.skipped if isinstance(x, Splits) else (),
        model=_describe(model),
        plan="\n".join(
            [
                str(plan),
                *(
                    f"{i}. {planned.phase.title}: {result.proof}."
                    for i, (planned, result) in enumerate(
                        zip(plan.phases, results, strict=True), start=1
                    )
                ),
            ]
        ),
        seed=seed,
    )


def _firsts(results: Sequence[PhaseResult]) -> list[int]:
    return [sum(result.epochs for result in results[:i]) for i in range(len(results))]


def _phase_report(
    plan: Plan, planned: PhasePlan, result: PhaseResult, first: int
) -> reports.PhaseReport:
    trained = zip(plan.blocks, planned.blocks, strict=True)
    return reports.PhaseReport(
        name=planned.phase.title,
        epochs=result.epochs,
        first_epoch=first,
        train_seconds=result.seconds,
        blocks=tuple(name for name, share in trained if share and name != "head"),
        parameters_trained=planned.parameters,
        learning_rate=result.first_rate,
    )


def _describe(model: keras.Model) -> str:
    encoder, task = find_encoder(model), models.task_of(model)
    text = f"{model.name}: {model.count_params():,} parameters"
    if encoder is not None:
        text += f", encoder {encoder.details.get('name', encoder.name)}"
    return text + (f", {len(task.labels):,} labels" if task is not None else "")
