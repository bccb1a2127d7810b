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
from .loop.compiled_model import (
    CompileArguments,
    compile_config,
    compiled,
    reads_inputs,
)
from .loop.interrupts import Interrupts
from .loop.l2_sp import pretrained_values
from .loop.learning_rate import LearningRate
from .loop.loss_and_metrics import EpochMetrics, GlobalLoss, no_loss_error
from .loop.optimizer import default_optimizer, innermost
from .loop.optimizer_contract import check_methods
from .loop.optimizer_slots import build_optimizer
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
) -> CompileArguments:
    """Completes `fit`'s arguments with those of the model's `compile` and its task.

    Raises:
        TrainingError: No loss is given, or the optimizer cannot train in phases.
    """
    task, config = models.task_of(model), compile_config(model)
    names = ("loss", "loss_weights", "metrics", "weighted_metrics")
    chosen = {name: config.get(name) for name in names}
    if loss is not None:
        chosen |= {"loss": loss, "loss_weights": None}
    if metrics is not None:
        chosen |= {"metrics": metrics, "weighted_metrics": None}
    if task is not None and chosen["loss"] is None:
        chosen["loss"] = task.loss()
    if task is not None and not chosen["metrics"] and not chosen["weighted_metrics"]:
        chosen["metrics"] = task.metrics()
    # A compiled model may be trained with the losses of its layers alone.
    if chosen["loss"] is None and not (model.compiled or reads_inputs(model)):
        raise no_loss_error()
    resolved = resolve_optimizer(model, optimizer)
    if type(resolved).__name__ == "MultiOptimizer":
        raise TrainingError(
            "A MultiOptimizer cannot train in phases: it updates all of its variables "
            "or none. Use one optimizer, and Phase(layer_decay=…) for learning rates "
            "by depth."
        )
    from_compile = optimizer is None and resolved is not None
    steps = config.get("steps_per_execution") or 1
    return CompileArguments(
        resolved,
        **chosen,
        compiled=bool(config) and all(chosen[name] is config[name] for name in names),
        scales_loss=model.dtype_policy.name == "mixed_float16" and not from_compile,
        steps_per_execution=steps if steps > 1 else None,
        run_eagerly=bool(config.get("run_eagerly")),
    )


def make_run(
    model: keras.Model,
    plan: Plan,
    train: Feed,
    *,
    optimizer: keras.optimizers.Optimizer,
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
        model: The model, in the scope and in the context of `compiled_for_run`.
        plan: The plan, made for this model or for one that it is a copy of.
        train: The training examples.
        optimizer: The result of `compiled_for_run`.
        strategy, interrupts, static_shapes, chief: As for `StepSettings` and `Run`.
        accumulation: As `gradient_accumulation_steps` of `fit`.
        call_size: As `steps_per_execution` of `fit`.
        callbacks, ema, jit_compile, seed, verbose: As for `fit`.

    Raises:
        TrainingError: The losses cannot be used, or a number is out of its range.
    """
    _check_numbers(ema, call_size)
    replicas = strategy.num_replicas_in_sync
    if model.run_eagerly and replicas > 1:
        raise TrainingError(
            "run_eagerly=True of model.compile works on one device only. Give "
            "strategy=None, or compile the model without it."
        )
    single = replicas == 1 and accumulation == 1
    if is_applied_by_keras(optimizer):
        call_size = 1  # Python sets its learning rate before each update
    elif workers.worker_count(strategy) > 1:
        # Workers coordinate between calls, so all must make calls of the same size.
        call_size = call_size or 1
    return Run(
        model=model,
        settings=StepSettings(
            optimizer=optimizer,
            loss=GlobalLoss(model, replicas=replicas, single=single),
            metrics=EpochMetrics(model),
            strategy=strategy,
            seed=seed,
            accumulates=accumulation > 1,
            jit_compile=jit_compile,
            static_shapes=static_shapes,
            run_eagerly=model.run_eagerly,
        ),
        callbacks=keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            model=model,
            epochs=sum(planned.phase.epochs or 1 for planned in plan.phases),
            steps=train.steps,
            verbose=0,
        ),
        learning_rate=LearningRate(optimizer),
        pretrained=pretrained_values(model, plan.phases),
        averages=MovingAverages(
            _trained_variables(model, plan), momentum=ema, strategy=strategy
        ),
        interrupts=interrupts,
        accumulation=accumulation,
        call_size=call_size,
        verbose=verbose,
        chief=chief,
    )


@contextlib.contextmanager
def compiled_for_run(
    model: keras.Model,
    plan: Plan,
    train: Feed,
    arguments: CompileArguments,
    strategy: tf.distribute.Strategy,
) -> Iterator[keras.optimizers.Optimizer]:
    """Compiles a model for a run, in its strategy's scope; yields the optimizer.

    Raises:
        TrainingError: The optimizer, the losses or the metrics cannot be used.
    """
    optimizer = _make_optimizer(arguments, _trained_variables(model, plan), strategy)
    convert = lambda metric: _in_scope(metric, strategy)
    replicas = strategy.num_replicas_in_sync
    with compiled(
        model, arguments, optimizer, train.element_spec, convert, replicas=replicas
    ):
        yield optimizer


def _trained_variables(model: keras.Model, plan: Plan) -> list[keras.Variable]:
    trained = {i for planned in plan.phases for i in planned.selection.trained}
    return weights_at(model, sorted(trained))


def call_size(arguments: CompileArguments, argument: int | None) -> int | None:
    """Returns the updates in one call: `fit`'s argument, or that of `compile`."""
    if arguments.run_eagerly:
        return 1
    return arguments.steps_per_execution if argument is None else argument


def _check_numbers(ema: float, call_size: int | None) -> None:
    if not 0 <= ema < 1:
        raise TrainingError(f"ema must be 0 for none, or below 1; got {ema!r}.")
    if call_size is not None and not 1 <= call_size <= CALL_LIMIT:
        raise TrainingError(
            f"steps_per_execution must be 1 to {CALL_LIMIT}, or None; got "
            f"{call_size!r}."
        )


def _make_optimizer(
    arguments: CompileArguments,
    variables: Sequence[keras.Variable],
    strategy: tf.distribute.Strategy,
) -> keras.optimizers.Optimizer:
    """Returns the optimizer, or a copy in the strategy's scope, built for variables."""
    optimizer = arguments.optimizer
    if optimizer is None:
        optimizer = default_optimizer(variables)
    elif innermost(optimizer).gradient_accumulation_steps or not _is_in_scope(
        optimizer, strategy
    ):
        optimizer = recreate_in_scope(optimizer, strategy)
    if arguments.scales_loss:
        optimizer = _with_loss_scale(optimizer)
    # The loop accumulates gradients, since Keras cannot do so under a strategy
    # (keras-team/tf-keras#301). A user's optimizer that accumulates was copied above.
    innermost(optimizer).gradient_accumulation_steps = None
    check_methods(optimizer)
    check_replicas(optimizer, strategy.num_replicas_in_sync)
    build_optimizer(optimizer, variables)
    return optimizer


def _with_loss_scale(
    optimizer: keras.optimizers.Optimizer,
) -> keras.optimizers.Optimizer:
    """Adds the scaling of the loss that `compile` adds for "mixed_float16".

    Without it, gradients below 6e-8 become 0.
    """
    if optimizer.loss_scale_factor or isinstance(
        optimizer, keras.optimizers.LossScaleOptimizer
    ):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def _in_scope(
    metric: keras.metrics.Metric, strategy: tf.distribute.Strategy
) -> keras.metrics.Metric:
    if _is_in_scope(metric, strategy):
        return metric
    return recreate_in_scope(metric, strategy)


def _is_in_scope(
    tool: keras.optimizers.Optimizer | keras.metrics.Metric,
    strategy: tf.distribute.Strategy,
) -> bool:
    """Returns whether all variables of an optimizer or metric are in a scope."""
    strategies = {getattr(v.value, "distribute_strategy", None) for v in tool.variables}
    # Outside every scope a variable has no strategy, or the default one.
    allowed = {None, strategy} if is_default(strategy) else {strategy}
    return strategies <= allowed
