"""A run is put together: optimizer, loss, metrics and callbacks around a model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import models
from ..errors import TrainingError
from .arguments import given_optimizer
from .checkpoints.fingerprint import fingerprint
from .feeds.feed import Feed
from .loop.averages import Averages
from .loop.interrupts import Interrupts
from .loop.l2_sp import remember_published
from .loop.loss_and_metrics import Meters, Objective, compiled_metrics, resolve_metrics
from .loop.optimizer import Rate, build_optimizer, default_optimizer, has_schedule
from .loop.run import Run
from .loop.step import CALL_LIMIT, Setting
from .loop.update import check_replicas, counts_itself
from .plans.schedules import Phase
from .plans.trainable_selection import choose
from .strategies import workers
from .strategies.scope_copies import carry_tool
from .strategies.strategies import is_default


@dataclasses.dataclass(frozen=True)
class Tools:
    """What a model is trained with: arguments of `fit`, or what the model knows.

    Attributes:
        optimizer: `None` for the default one.
        loss: A Keras loss, a function or a name.
        metrics: Keras metrics, functions or names.
    """

    optimizer: keras.optimizers.Optimizer | None
    loss: Any
    metrics: Sequence[Any]


def find_tools(model: keras.Model, optimizer, loss, metrics) -> Tools:
    """The tools for a model; arguments as for `fit`.

    Raises:
        TrainingError: Nothing says which loss to use.
    """
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
        metrics = compiled_metrics(model) or (task.metrics() if task else [])
    found = given_optimizer(model, optimizer)
    if type(found).__name__ == "MultiOptimizer":
        raise TrainingError(
            "A MultiOptimizer cannot train in phases: it takes all of its variables or "
            "none. Use one optimizer, and Phase(layer_decay=…) for rates by depth."
        )
    return Tools(found, loss, metrics)


def make_run(
    model: keras.Model,
    phases: Sequence[Phase],
    train: Feed,
    *,
    tools: Tools,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
    accumulation: int,
    ema: float,
    jit_compile: bool,
    static_shapes: bool,
    call_size: int | None,
    seed: int,
    interrupts: Interrupts,
    verbose: int,
    chief: bool,
) -> Run:
    """Puts a run together in a strategy's scope; the other arguments are `fit`'s.

    Raises:
        TrainingError: The optimizer cannot be used, or a number is out of its range.
    """
    _check_numbers(ema, call_size)
    wanted = {id(v) for phase in phases for v in choose(model, phase).trained}
    variables = [v for v in model.weights if id(v) in wanted]
    optimizer = tools.optimizer
    if optimizer is None:
        optimizer = default_optimizer(variables)
    elif optimizer.gradient_accumulation_steps or not _at_home(optimizer, strategy):
        optimizer = carry_tool(optimizer, strategy)
    # The loop sums gradients itself: Keras cannot under a strategy (keras-team/
    # tf-keras#301). An optimizer of the user's that does is copied, and stays as it is.
    optimizer.gradient_accumulation_steps = None
    check_replicas(optimizer, strategy.num_replicas_in_sync)
    build_optimizer(optimizer, variables)
    if counts_itself(optimizer):
        call_size = 1  # Python sets its learning rate
    elif workers.count(strategy) > 1:
        # Between two calls all workers agree on what to do, so these must be the same.
        call_size = call_size or 1
    specs = _specs(model, train)
    metrics = resolve_metrics(tools.metrics, *specs)
    metrics = [m if _at_home(m, strategy) else carry_tool(m, strategy) for m in metrics]
    _make_variables(metrics, strategy, *specs)
    setting = Setting(
        optimizer=optimizer,
        objective=Objective(tools.loss),
        meters=Meters(metrics),
        strategy=strategy,
        seed=seed,
        accumulates=accumulation > 1,
        jit_compile=jit_compile,
        static_shapes=static_shapes,
    )
    return Run(
        model=model,
        setting=setting,
        callbacks=keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            model=model,
            epochs=sum(p.epochs or 1 for p in phases),
            steps=train.steps,
            verbose=0,
        ),
        rate=Rate(optimizer, getattr(model, "optimizer", None) or optimizer),
        published=remember_published(model, phases),
        averages=Averages(variables, momentum=ema, strategy=strategy),
        interrupts=interrupts,
        accumulation=accumulation,
        call_size=call_size,
        verbose=verbose,
        chief=chief,
    )


def job_facts(
    run: Run,
    phases: Sequence[Phase],
    train: Feed,
    batch_size: int,
    **others: Any,
) -> dict[str, Any]:
    """What a checkpoint remembers of the job, so that another is not resumed.

    Args:
        run: The run.
        phases: The schedule.
        train: The examples to train on.
        batch_size: As for `fit`.
        **others: Further arguments of `fit`, as plain values.
    """
    return fingerprint(
        run.model,
        phases,
        train,
        optimizer=run.setting.optimizer,
        loss=run.setting.objective.loss,
        seed=run.setting.seed,
        batch_size=batch_size,
        gradient_accumulation_steps=run.accumulation,
        ema=run.averages.momentum,
        **others,
    )


@contextlib.contextmanager
def optimizer_lent(model: keras.Model, optimizer) -> Iterator[None]:
    """Gives callbacks a `model.optimizer` where the model has none, for a while.

    Phases change its learning rate and weight decay; in the end it has its own again.
    """
    decay, lent = optimizer.weight_decay, getattr(model, "optimizer", None) is None
    shown = [optimizer] if lent else [optimizer, model.optimizer]
    changing = [one for one in shown if not has_schedule(one)]
    rates = [float(keras.ops.convert_to_numpy(one.learning_rate)) for one in changing]
    if lent:
        model.optimizer = optimizer
    try:
        yield
    finally:
        optimizer.weight_decay = decay
        for one, rate in zip(changing, rates, strict=True):
            one.learning_rate = rate
        if lent:
            del model.optimizer


def _at_home(
    tool: keras.optimizers.Optimizer | keras.metrics.Metric,
    strategy: tf.distribute.Strategy,
) -> bool:
    """Whether a tool's variables, if it has any yet, are in a strategy's scope."""
    homes = {getattr(v.value, "distribute_strategy", None) for v in tool.variables}
    # Outside every scope a variable has none, or the default one.
    none = {None, strategy} if is_default(strategy) else {strategy}
    return homes <= none


def _check_numbers(ema: float, call_size: int | None) -> None:
    if not 0 <= ema < 1:
        raise TrainingError(f"ema must be 0 for none, or below 1; got {ema!r}.")
    if call_size is not None and not 1 <= call_size <= CALL_LIMIT:
        raise TrainingError(
            f"steps_per_execution must be 1 to {CALL_LIMIT}, or None; got "
            f"{call_size!r}."
        )


def _make_variables(metrics, strategy: tf.distribute.Strategy, labels, outputs) -> None:
    """Has metrics make what they make in their first update, so it can be restored."""
    zeros = [tf.zeros([1, *s.shape[1:]], s.dtype) for s in (labels, outputs)]
    for metric in metrics:
        if not metric.variables:
            strategy.run(metric.update_state, zeros)
            metric.reset_state()


def _specs(model: keras.Model, train: Feed):
    """What the labels and the outputs look like, for metrics given by name."""
    inputs, labels, _ = train.batches(None).element_spec
    outputs = getattr(model, "outputs", None)
    if outputs:
        return labels, outputs[0]
    symbols = tf.nest.map_structure(
        lambda spec: keras.KerasTensor(spec.shape, spec.dtype.name), inputs
    )
    return labels, tf.nest.flatten(model.compute_output_spec(symbols))[0]
