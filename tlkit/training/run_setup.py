"""Sets up a run: optimizer, loss, metrics and callbacks for a model.

Tested in tests/training/test_fitting.py and tests/training/loop/test_step.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from .. import models
from ..errors import TrainingError
from .arguments import resolve_optimizer
from .feeds.feed import Feed
from .loop.averages import MovingAverages
from .loop.interrupts import Interrupts
from .loop.l2_sp import pretrained_values
from .loop.loss_and_metrics import (
    EpochMetrics,
    GlobalLoss,
    compiled_metrics,
    resolve_metrics,
)
from .loop.optimizer import (
    LearningRate,
    build_optimizer,
    default_optimizer,
    has_schedule,
)
from .loop.run import Run
from .loop.step import CALL_LIMIT, StepSettings
from .loop.update import check_replicas, is_applied_by_keras
from .plans.plan import Plan
from .plans.trainable_selection import weights_at
from .strategies import workers
from .strategies.scope_copies import recreate_in_scope
from .strategies.strategies import is_default


def compile_arguments(
    model: keras.Model, optimizer: Any, loss: Any, metrics: Sequence[Any] | None
) -> tuple[keras.optimizers.Optimizer | None, Any, Sequence[Any]]:
    """Completes arguments of `fit` from the model's `compile` and its task.

    The optimizer is `None` for the default one.

    Raises:
        TrainingError: No loss is given, or the optimizer cannot train in phases.
    """
    task = models.task_of(model)
    if loss is None:
        loss = model.loss if model.compiled else task and task.loss()
    if loss is None:
        raise TrainingError(
            "No loss is given. Give one: "
            'tlkit.fit(…, loss="sparse_categorical_crossentropy"), or model.compile '
            "the model."
        )
    if metrics is None:
        metrics = compiled_metrics(model) or (task.metrics() if task else [])
    optimizer = resolve_optimizer(model, optimizer)
    if type(optimizer).__name__ == "MultiOptimizer":
        raise TrainingError(
            "A MultiOptimizer cannot train in phases: it updates all of its variables "
            "or none. Use one optimizer, and Phase(layer_decay=…) for learning rates "
            "by depth."
        )
    return optimizer, loss, metrics


def make_run(
    model: keras.Model,
    plan: Plan,
    train: Feed,
    *,
    optimizer: keras.optimizers.Optimizer | None,
    loss: Any,
    metrics: Sequence[Any],
    strategy: tf.distribute.Strategy,
    interrupts: Interrupts,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    accumulation: int = 1,
    ema: float = 0.0,
    jit_compile: bool = False,
    static_shapes: bool = False,
    call_size: int | None = None,
    seed: int = 0,
    verbose: int = 0,
    chief: bool = True,
) -> Run:
    """Sets up a run in a strategy's scope.

    Args:
        model: The model, in the scope.
        plan: The plan, made for this model or for one that it is a copy of.
        train: The training examples.
        optimizer, loss, metrics: The result of `compile_arguments`.
        strategy, interrupts, static_shapes, chief: As for `StepSettings` and `Run`.
        accumulation: As `gradient_accumulation_steps` of `fit`.
        call_size: As `steps_per_execution` of `fit`.
        callbacks, ema, jit_compile, seed, verbose: As for `fit`.

    Raises:
        TrainingError: The optimizer cannot be used, or a number is out of its range.
    """
    _check_numbers(ema, call_size)
    trained = {i for planned in plan.phases for i in planned.selection.trained}
    variables = weights_at(model, sorted(trained))
    optimizer = _make_optimizer(optimizer, variables, strategy)
    if is_applied_by_keras(optimizer):
        call_size = 1  # Python sets its learning rate
    elif workers.worker_count(strategy) > 1:
        # Workers coordinate between calls, so all must make calls of the same size.
        call_size = call_size or 1
    return Run(
        model=model,
        settings=StepSettings(
            optimizer=optimizer,
            loss=GlobalLoss(loss),
            metrics=_make_metrics(metrics, model, train, strategy),
            strategy=strategy,
            seed=seed,
            accumulates=accumulation > 1,
            jit_compile=jit_compile,
            static_shapes=static_shapes,
        ),
        callbacks=keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            model=model,
            epochs=sum(planned.phase.epochs or 1 for planned in plan.phases),
            steps=train.steps,
            verbose=0,
        ),
        learning_rate=LearningRate(
            optimizer, getattr(model, "optimizer", None) or optimizer
        ),
        pretrained=pretrained_values(model, plan.phases),
        averages=MovingAverages(variables, momentum=ema, strategy=strategy),
        interrupts=interrupts,
        accumulation=accumulation,
        call_size=call_size,
        verbose=verbose,
        chief=chief,
    )


@contextlib.contextmanager
def optimizer_for_callbacks(
    model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Iterator[None]:
    """Sets `model.optimizer` in a context if the model has none.

    Phases change the learning rate and the weight decay; both are restored.
    """
    weight_decay = optimizer.weight_decay
    has_none = getattr(model, "optimizer", None) is None
    optimizers = [optimizer] if has_none else [optimizer, model.optimizer]
    changing = [one for one in optimizers if not has_schedule(one)]
    rates = [float(keras.ops.convert_to_numpy(one.learning_rate)) for one in changing]
    if has_none:
        model.optimizer = optimizer
    try:
        yield
    finally:
        optimizer.weight_decay = weight_decay
        for one, rate in zip(changing, rates, strict=True):
            one.learning_rate = rate
        if has_none:
            del model.optimizer


def _check_numbers(ema: float, call_size: int | None) -> None:
    if not 0 <= ema < 1:
        raise TrainingError(f"ema must be 0 for none, or below 1; got {ema!r}.")
    if call_size is not None and not 1 <= call_size <= CALL_LIMIT:
        raise TrainingError(
            f"steps_per_execution must be 1 to {CALL_LIMIT}, or None; got "
            f"{call_size!r}."
        )


def _make_optimizer(
    optimizer: keras.optimizers.Optimizer | None,
    variables: Sequence[keras.Variable],
    strategy: tf.distribute.Strategy,
) -> keras.optimizers.Optimizer:
    """Returns the optimizer, or a copy in the strategy's scope, built for variables."""
    if optimizer is None:
        optimizer = default_optimizer(variables)
    elif optimizer.gradient_accumulation_steps or not _is_in_scope(optimizer, strategy):
        optimizer = recreate_in_scope(optimizer, strategy)
    # The loop accumulates gradients itself: Keras cannot under a strategy (keras-team/
    # tf-keras#301). A user's optimizer that does is copied, and stays unchanged.
    optimizer.gradient_accumulation_steps = None
    check_replicas(optimizer, strategy.num_replicas_in_sync)
    build_optimizer(optimizer, variables)
    return optimizer


def _make_metrics(
    metrics: Sequence[Any],
    model: keras.Model,
    train: Feed,
    strategy: tf.distribute.Strategy,
) -> EpochMetrics:
    """Resolves metrics in the strategy's scope, and creates their variables."""
    specs = _label_and_output_specs(model, train)
    in_scope = [
        metric
        if _is_in_scope(metric, strategy)
        else recreate_in_scope(metric, strategy)
        for metric in resolve_metrics(metrics, *specs)
    ]
    # Some metrics create variables in their first update. A checkpoint can only be
    # restored into variables that exist.
    zeros = [tf.zeros([1, *s.shape[1:]], s.dtype) for s in specs]
    for metric in in_scope:
        if not metric.variables:
            strategy.run(metric.update_state, zeros)
            metric.reset_state()
    return EpochMetrics(in_scope)


def _is_in_scope(
    tool: keras.optimizers.Optimizer | keras.metrics.Metric,
    strategy: tf.distribute.Strategy,
) -> bool:
    """Returns whether all existing variables of a tool are in a strategy's scope."""
    strategies = {getattr(v.value, "distribute_strategy", None) for v in tool.variables}
    # Outside every scope a variable has no strategy, or the default one.
    allowed = {None, strategy} if is_default(strategy) else {strategy}
    return strategies <= allowed


def _label_and_output_specs(model: keras.Model, train: Feed) -> tuple[Any, Any]:
    inputs, labels, _ = train.batches(None).element_spec
    outputs = getattr(model, "outputs", None)
    if outputs:
        return labels, outputs[0]
    symbols = tf.nest.map_structure(
        lambda spec: keras.KerasTensor(spec.shape, spec.dtype.name), inputs
    )
    return labels, tf.nest.flatten(model.compute_output_spec(symbols))[0]
