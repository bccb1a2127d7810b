"""`fit`: a model, data and a schedule become a trained model and a report."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import models, reports
from ..data import Splits
from ..errors import TrainingError
from .choosing import choose
from .collecting import collect
from .evaluation import evaluate_feed
from .inputs import Feed, count_steps
from .loop import PhaseResult, Run, run_phase
from .objectives import Objective, compiled_metrics, resolve_metrics
from .planning import Plan, make_plan
from .preparing import build, feeds_for, given_optimizer, options_for, phases_for
from .proof import checksums
from .published import remember_published
from .rates import Rate, build_optimizer, default_optimizer
from .reporting import make_folder, make_report
from .schedules import Phase
from .showing import say
from .steps import Meters
from .strategies import place_of


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
    train, validation = feeds_for(model, x, y, validation_data, class_weight, options)
    build(model, train)
    phases = phases_for(model, schedule, epochs, optimizer)
    if any(phase.steps is None for phase in phases):
        train = count_steps(train)
    batches = train.steps if isinstance(train.steps, int) else None
    plan = make_plan(model, phases, batches=batches, cache=cache and train.repeats)
    folder = make_folder(directory, plan)
    if verbose:
        say(str(plan))
    with place.scope(), tf.device(device):
        run = _make_run(
            model, phases, train, optimizer, loss, metrics, place, callbacks
        )
        run.verbose = verbose
        results, evaluations = _train(run, plan, train, validation)
    report = make_report(
        run,
        plan,
        results,
        evaluations=evaluations,
        skipped=x.skipped if isinstance(x, Splits) else (),
        seed=seed,
        seconds=time.monotonic() - began,
    )
    if folder is not None:
        report.save(folder)
    return report


def _make_run(
    model, phases, train, optimizer, loss, metrics, strategy, callbacks
) -> Run:
    wanted = {id(v) for phase in phases for v in choose(model, phase).trained}
    variables = [v for v in model.weights if id(v) in wanted]
    optimizer = given_optimizer(model, optimizer) or default_optimizer(variables)
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
        published=remember_published(model, phases),
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
    results: list[PhaseResult] = []
    features = _Features(run, [train, validation])
    try:
        with _optimizer_shown(run):
            run.callbacks.on_train_begin()
            for planned in plan.phases:
                part, feeds = run.model, features.feeds
                if planned.cached:
                    part, feeds = features.top_and_feeds()
                results.append(run_phase(run, planned, part, *feeds))
                if run.verbose:
                    say(f"{planned.phase.title}: {results[-1].proof}")
            run.callbacks.on_train_end({k: v[-1] for k, v in run.history.items()})
    finally:
        # Keras keeps a train function that was traced with another `trainable`.
        run.model.train_function = None
    return results, _final(run, features) if validation is not None else {}


class _Features:
    """Features of all examples, kept until the encoder changes.

    Args:
        run: The run.
        feeds: Those of training and of validation, or `None`.
    """

    def __init__(self, run: Run, feeds: list[Feed | None]):
        self.run, self.feeds = run, feeds
        self.kept: list[Feed | None] = []
        self.checksums: tuple[int, ...] = ()

    def top_and_feeds(self) -> tuple[keras.Model, list[Feed | None]]:
        """The top of the model, and feeds with features instead of inputs."""
        trunk, top = models.split(self.run.model)
        if not self.hold(trunk):
            self.checksums = checksums(trunk.weights)
            names = ("computing features", "computing features of the validation data")
            self.kept = [
                feed and feed.from_table(self._collect(trunk, feed, what))
                for feed, what in zip(self.feeds, names, strict=True)
            ]
        return top, self.kept

    def hold(self, trunk: keras.Model) -> bool:
        """Whether there are features, and the encoder is as it was for them."""
        return bool(self.kept) and checksums(trunk.weights) == self.checksums

    def _collect(self, trunk, feed: Feed, what: str):
        return collect(trunk, feed, what=what, verbose=self.run.verbose)


def _final(run: Run, features: _Features) -> dict[str, reports.Evaluation]:
    """What the report says of the validation data, if it is a classification."""
    if models.task_of(run.model) is None:
        return {}
    part, (_, validation) = run.model, features.feeds
    if features.kept and features.hold(models.split(run.model)[0]):
        part, (_, validation) = features.top_and_feeds()
    found = evaluate_feed(
        run.model, part, validation, run.objective, verbose=run.verbose
    )
    return {"validation": found}


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
