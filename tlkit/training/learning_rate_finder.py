"""`find_learning_rate`: which learning rates make the loss fall, tried on the data.

The range test of Smith 2017, "Cyclical learning rates for training neural networks",
arXiv 1506.01186: the rate rises from step to step, and the loss says where it is too
low to matter and where it is too high.
"""

from __future__ import annotations

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
from ..errors import PlanError, TrainingError
from ..progress import progress
from .arguments import build, feeds_for, options_for
from .feeds.feed import Feed
from .feeds.replica_batches import hand_out
from .loop.interrupts import Interrupts
from .loop.optimizer import has_schedule
from .phase_loop import make_steps, set_trainable
from .plans.plan import make_plan
from .plans.schedules import Phase
from .run_setup import find_tools, make_run
from .strategies.scope_copies import all_layers, carry_tool
from .strategies.strategies import find_place

_WORSE = 4.0  # the test ends where the loss is so many times the best one
_MEMORY = 0.9  # share of the smoothed loss that a step leaves


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """What a learning-rate range test found; `print` it.

    Attributes:
        learning_rates: The rates that were tried, rising.
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
        places = np.linspace(0, len(self.losses) - 1, min(12, len(self.losses)))
        rows = [
            f"{self.learning_rates[i]:10.2e}  {self.losses[i]:8.4f}"
            for i in places.round().astype(int)
        ]
        last = f"suggestion {self.suggestion:.2e}, lowest loss at {self.limit:.2e}"
        return "\n".join(["      rate      loss", *rows, last])


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
    """Tries rising learning rates, and leaves the model as it was.

    Args:
        model: As for `tlkit.fit`.
        x: As for `tlkit.fit`; only the examples to train on are used.
        y: As for `tlkit.fit`.
        train: What is trained, as for `tlkit.Phase`.
        lowest: The first rate, above 0.
        highest: The last rate, above `lowest`. It is not reached if the loss explodes
            before.
        steps: Batches, 10 to 10,000; the data is gone through again if it is shorter.
        batch_size: Examples in a batch.
        batch_norm: What batch norms do, as for `tlkit.Phase`.
        layer_decay: As for `tlkit.Phase`.
        optimizer: As for `tlkit.fit`; a fresh one like it is used.
        loss: As for `tlkit.fit`.
        seed: Decides the order of the examples.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        The rates, the losses and a suggestion.

    Raises:
        PlanError: A number is out of its range, or nothing would be trained.
        TrainingError: The loss is not finite at the first rate.

    Example:

    ```python
    found = tlkit.find_learning_rate(model, splits, train=2)
    phase = tlkit.Phase(2, epochs=3, learning_rate=found.suggestion)
    ```
    """
    if not 0 < lowest < highest < math.inf:
        raise PlanError(
            "lowest and highest must be rising numbers above 0. Received: "
            f"lowest={lowest!r}, highest={highest!r}."
        )
    if not isinstance(steps, int) or not 10 <= steps <= 10_000:
        raise PlanError(f"steps must be an integer of 10 to 10,000; got {steps!r}.")
    options = options_for(model, batch_size=batch_size, seed=seed)
    feed, _ = feeds_for(model, x, y, None, None, options)
    build(model, feed)
    phase = Phase(
        train,
        steps=steps,
        batch_norm=batch_norm,
        layer_decay=layer_decay,
        name="learning-rate test",
    )
    tools = find_tools(model, optimizer, loss, ())
    if tools.optimizer is not None and has_schedule(tools.optimizer):
        raise PlanError(
            "The optimizer has a schedule of its own for its learning rate; no other "
            "rate can be tried. Give optimizer=… with a plain learning rate."
        )
    place = find_place(model, None)
    rates = np.geomspace(lowest, highest, steps)
    with _left_as_found(model), place.strategy.scope():
        if tools.optimizer is not None:
            fresh = carry_tool(tools.optimizer, place.strategy)
            tools = dataclasses.replace(tools, optimizer=fresh)
        losses = _losses(model, phase, feed, tools, rates, seed, verbose)
    return _search(rates, losses)


def _losses(model, phase, feed: Feed, tools, rates, seed, verbose) -> list[float]:
    run = make_run(
        model,
        [phase],
        feed,
        tools=tools,
        strategy=tf.distribute.get_strategy(),
        callbacks=(),
        accumulation=1,
        ema=0.0,
        jit_compile=False,
        static_shapes=False,
        call_size=1,
        seed=seed,
        interrupts=Interrupts(False),
        verbose=0,
        chief=True,
    )
    (planned,) = make_plan(model, [phase], batches=None, cache=None).phases
    choice = set_trainable(model, planned)
    steps = make_steps(run, planned, model, choice)
    losses: list[float] = []
    epoch, batches = 0, iter(hand_out(feed, 0, run.setting.strategy))
    shown = progress(
        rates, total=len(rates), what="trying learning rates", verbose=verbose
    )
    for number, rate in enumerate(shown):
        run.rate.show(float(rate))
        try:
            found = steps(batches, [rate], first=number)
        except tf.errors.OutOfRangeError:
            epoch += 1
            batches = iter(hand_out(feed, epoch, run.setting.strategy))
            found = steps(batches, [rate], first=number)
        loss = float(found[0][0])
        if int(found[1]) >= 0 or not math.isfinite(loss):
            break
        losses.append(loss)
        if loss > _WORSE * min(losses):
            break
    return losses


def _search(rates: np.ndarray, losses: Sequence[float]) -> RateSearch:
    if len(losses) < 3:
        raise TrainingError(
            f"The loss is not finite at a learning rate of {rates[len(losses)]:.2e} "
            "already. Give a smaller lowest=…, or look for numbers in the data that "
            "are not finite."
        )
    smooth, average = [], 0.0
    for i, loss in enumerate(losses, start=1):
        average = _MEMORY * average + (1 - _MEMORY) * loss
        smooth.append(average / (1 - _MEMORY**i))
    best = int(np.argmin(smooth))
    slopes = np.gradient(smooth, np.log(rates[: len(smooth)]))
    steepest = int(np.argmin(slopes[: best + 1]))
    return RateSearch(
        tuple(map(float, rates[: len(smooth)])),
        tuple(map(float, smooth)),
        suggestion=float(rates[steepest]),
        limit=float(rates[best]),
    )


@contextlib.contextmanager
def _left_as_found(model: keras.Model) -> Iterator[None]:
    """Gives a model everything back that training changes."""
    encoder = find_encoder(model)
    layers = [(layer, layer.trainable) for layer in all_layers(model)]
    flags = [(variable, variable.trainable) for variable in model.weights]
    values = [tf.identity(variable.value) for variable in model.variables]
    modes = encoder and (encoder.batch_norm, encoder.dropout)
    try:
        yield
    finally:
        for layer, trainable in layers:  # which writes to all that is in it
            layer.trainable = trainable
        for variable, trainable in flags:
            variable.trainable = trainable
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        if encoder is not None:
            encoder.batch_norm, encoder.dropout = modes
        model.train_function = None
