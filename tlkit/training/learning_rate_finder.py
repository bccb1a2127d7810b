"""`find_learning_rate`: tries rising learning rates on the data.

The range test of Smith 2017, "Cyclical learning rates for training neural networks",
arXiv 1506.01186: the loss falls while the rate is useful, and rises where it is too
high.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data import Splits
from ..encoders import find_encoder
from ..errors import DataError, PlanError, TrainingError
from ..progress import progress
from .arguments import build, feed_options
from .data_arguments import DataArguments, make_feeds
from .feeds.data_errors import naming_data_errors
from .feeds.feed import Feed
from .feeds.replica_batches import hand_out
from .loop.interrupts import Interrupts
from .loop.optimizer import has_schedule
from .loop.run import Run
from .phase_loop import make_steps, set_trainable
from .plans.plan import PhasePlan, make_plan
from .plans.schedules import Phase
from .run_setup import compile_arguments, compiled_for_run, make_run
from .strategies.layer_tree import all_layers
from .strategies.scope_copies import recreate_in_scope
from .strategies.strategies import find_placement

_EXPLODED = 4.0  # the test ends when the loss is above this multiple of the lowest loss
_MOMENTUM = 0.9  # the fraction of the smoothed loss that a step keeps


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """The result of a learning-rate range test; `print` it.

    Attributes:
        learning_rates: The tested rates, rising.
        losses: The smoothed loss at each of them.
        suggestion: The rate at which the loss fell fastest: a good highest rate of a
            phase.
        limit: The rate with the lowest loss: higher ones are too high.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    limit: float

    def __str__(self) -> str:
        indices = np.linspace(0, len(self.losses) - 1, min(12, len(self.losses)))
        rows = [
            f"{self.learning_rates[i]:10.2e}  {self.losses[i]:8.4f}"
            for i in indices.round().astype(int)
        ]
        last = f"suggestion {self.suggestion:.2e}, lowest loss at {self.limit:.2e}"
        return "\n".join(["      rate      loss", *rows, last])


@naming_data_errors()
def find_learning_rate(
    model: keras.Model,
    x: Splits | tf.data.Dataset | Any,
    y: Any = None,
    *,
    train: str | int | Sequence[str] = "all",
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    batch_norm: str = "frozen",
    layer_decay: float = 1.0,
    optimizer: keras.optimizers.Optimizer | str | None = None,
    loss: Any = None,
    seed: int = 0,
    verbose: int = 1,
) -> RateSearch:
    """Tries rising learning rates, and restores the model afterwards.

    Args:
        model: As for `tlkit.fit`.
        x: As for `tlkit.fit`; only the training examples are used.
        y: As for `tlkit.fit`.
        train: The trained part of the encoder, as for `tlkit.Phase`.
        lowest: The first rate, above 0.
        highest: The last rate, above `lowest`. The test ends earlier if the loss
            explodes.
        steps: Batches, 10 to 10,000; shorter data is repeated.
        batch_size: Examples in a batch.
        batch_norm: The statistics of batch norms, as for `tlkit.Phase`.
        layer_decay: As for `tlkit.Phase`.
        optimizer: As for `tlkit.fit`; a new one with the same settings is used.
        loss: As for `tlkit.fit`.
        seed: Decides the order of the examples.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        The rates, the losses and a suggestion.

    Raises:
        PlanError: A number is out of its range, or nothing would be trained.
        TrainingError: The loss is not finite at the first rates.

    Example:

    ```python
    search = tlkit.find_learning_rate(model, splits, train=2)
    search.suggestion  # 0.0012
    phase = tlkit.Phase(2, epochs=3, learning_rate=search.suggestion)
    ```
    """
    if not 0 < lowest < highest < math.inf:
        raise PlanError(
            "lowest and highest must be rising numbers above 0. Received: "
            f"lowest={lowest!r}, highest={highest!r}."
        )
    if not isinstance(steps, (int, np.integer)) or not 10 <= steps <= 10_000:
        raise PlanError(f"steps must be an integer of 10 to 10,000; got {steps!r}.")
    options = feed_options(model, batch_size=batch_size, seed=seed)
    feed, _ = make_feeds(model, DataArguments(x, y), options, loss=loss)
    build(model, feed)
    phase = Phase(
        train,
        steps=steps,
        batch_norm=batch_norm,
        layer_decay=layer_decay,
        name="learning-rate test",
    )
    arguments = compile_arguments(model, optimizer, loss, ())
    optimizer = arguments.optimizer
    if optimizer is not None and has_schedule(optimizer):
        raise PlanError(
            "The optimizer has a LearningRateSchedule of its own, so no other rate can "
            "be tried. Give optimizer=… with a plain learning rate."
        )
    strategy = find_placement(model, None).strategy
    rates = np.geomspace(lowest, highest, steps)
    with _restored(model), strategy.scope():
        if optimizer is not None:
            optimizer = recreate_in_scope(optimizer, strategy)
            arguments = dataclasses.replace(arguments, optimizer=optimizer)
        plan = make_plan(model, [phase], updates=None, cache=None)
        strategy = tf.distribute.get_strategy()
        with compiled_for_run(model, plan, feed, arguments, strategy) as optimizer:
            run = make_run(
                model,
                plan,
                feed,
                optimizer=optimizer,
                strategy=strategy,
                interrupts=Interrupts(False),
                call_size=1,
                seed=seed,
            )
            losses = _losses(run, plan.phases[0], feed, rates, verbose)
    return _search(rates, losses)


def _losses(
    run: Run, planned: PhasePlan, feed: Feed, rates: np.ndarray, verbose: int
) -> list[float]:
    """Trains one step at each rate; returns the losses until one explodes."""
    set_trainable(run.model, planned)
    steps = make_steps(run, planned, run.model)
    losses: list[float] = []
    epoch, batches = 0, iter(hand_out(feed, 0, run.settings.strategy))
    for number, rate in enumerate(
        progress(rates, total=len(rates), what="trying learning rates", verbose=verbose)
    ):
        run.learning_rate.show(float(rate))
        try:
            step_losses, bad, _ = steps(batches, [rate], first=number)
        except tf.errors.OutOfRangeError:
            if feed.continues:
                raise DataError(
                    f"The training data ended after {number} batches, and can be read "
                    f"only once. Type steps={max(number, 10)}, or give more batches."
                ) from None
            epoch += 1
            batches = iter(hand_out(feed, epoch, run.settings.strategy))
            step_losses, bad, _ = steps(batches, [rate], first=number)
        loss = float(step_losses[0])
        if int(bad) >= 0 or not math.isfinite(loss):
            break
        losses.append(loss)
        if loss > _EXPLODED * min(losses):
            break
    return losses


def _search(rates: np.ndarray, losses: Sequence[float]) -> RateSearch:
    if len(losses) < 3:
        raise TrainingError(
            f"The loss is not finite at a learning rate of {rates[len(losses)]:.2e} "
            "already. Give a smaller lowest=…, or look for non-finite numbers in the "
            "data."
        )
    smooth, average = [], 0.0
    for i, loss in enumerate(losses, start=1):
        average = _MOMENTUM * average + (1 - _MOMENTUM) * loss
        smooth.append(average / (1 - _MOMENTUM**i))
    lowest = int(np.argmin(smooth))
    slopes = np.gradient(smooth, np.log(rates[: len(smooth)]))
    steepest = int(np.argmin(slopes[: lowest + 1]))
    return RateSearch(
        tuple(map(float, rates[: len(smooth)])),
        tuple(map(float, smooth)),
        suggestion=float(rates[steepest]),
        limit=float(rates[lowest]),
    )


@contextlib.contextmanager
def _restored(model: keras.Model) -> Iterator[None]:
    """Restores everything in a model that training changes."""
    encoder = find_encoder(model)
    layers = [(layer, layer.trainable) for layer in all_layers(model)]
    flags = [(variable, variable.trainable) for variable in model.weights]
    values = [tf.identity(variable.value) for variable in model.variables]
    modes = encoder and (encoder.batch_norm, encoder.dropout)
    try:
        yield
    finally:
        for layer, trainable in layers:  # also sets all variables in the layer
            layer.trainable = trainable
        for variable, trainable in flags:
            variable.trainable = trainable
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        if encoder is not None:
            encoder.batch_norm, encoder.dropout = modes
        model.train_function = None
