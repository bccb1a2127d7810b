"""Through an epoch: how many updates in one call, and a look at what came of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from ...errors import DataError, TrainingError
from ..feeds.feed import Feed
from ..feeds.replica_batches import hand_out
from ..strategies.workers import any_of
from .display import Display
from .run import Run
from .step import CALL_LIMIT, TrainSteps, make_test_steps
from .xla_check import naming_what_xla_lacks

# Updates of a phase; a head of zeros lets no gradient through at first.
PROVED_AFTER = 3
_CALL_SECONDS = 0.25


class CallSize:
    """How many updates to make in one call, so that it takes a quarter of a second.

    That is long enough for the call itself to cost nothing, and short enough for
    progress, Ctrl-C and checkpoints.

    Args:
        fixed: A number to keep to, or `None`.
    """

    def __init__(self, fixed: int | None):
        self.size = fixed or 1
        self._fixed = fixed is not None
        self._calls = 0

    def took(self, updates: int, seconds: float) -> None:
        """Takes in how long a call was; the first one is spent on tracing."""
        self._calls += 1
        if not self._fixed and self._calls > 1:
            wanted = _CALL_SECONDS * updates / max(seconds, 1e-9)
            self.size = int(min(max(wanted, 1), CALL_LIMIT, 8 * self.size))


class Trainer:
    """Trains for one epoch after the other of a phase.

    Args:
        run: The run; its position is kept up to date.
        steps: The phase's step functions.
        rates: The schedule's learning rate for each update of the phase.
        title: Name of the phase.
        display: Shows the progress.
        after_call: Is called between two calls.
    """

    def __init__(
        self,
        run: Run,
        steps: TrainSteps,
        rates: np.ndarray,
        *,
        title: str,
        display: Display,
        after_call: Callable[[], None],
    ):
        self.run, self.steps, self.rates = run, steps, rates
        self.title, self.display, self.after_call = title, display, after_call
        strategy = run.setting.strategy
        self.watched = any_of(strategy, watches_batches(run.callbacks))
        fixed = 1 if self.watched and run.call_size is None else run.call_size
        self.call_size = CallSize(fixed)

    def train(self, feed: Feed) -> None:
        """Trains to the end of the epoch, or of the phase.

        Raises:
            TrainingError: A gradient is not finite.
            DataError: The data is empty.
        """
        run, position = self.run, self.run.position
        skip = position.batches
        dataset = hand_out(
            feed,
            position.epoch,
            run.setting.strategy,
            skip=skip,
            full=run.setting.static_shapes,
        )
        batches = iter(dataset)
        for updates, micro in self._calls(feed):
            if not self._call(batches, updates, micro):
                break
            self.after_call()
            if any_of(run.setting.strategy, run.model.stop_training):
                run.model.stop_training = True
                break
        if not position.batches:
            raise DataError("The training data gave no batch.")

    def _calls(self, feed: Feed) -> Iterator[tuple[int, int]]:
        """The updates and micro-batches of each call, until the epoch is over."""
        position, size = self.run.position, self.run.accumulation
        while position.updates < len(self.rates):
            left = math.inf if feed.steps is None else feed.steps - position.batches
            if left <= 0:
                return
            whole = left if left == math.inf else left // size
            if feed.steps is None or not whole:
                yield 1, size if feed.steps is None else int(left)
                continue
            limits = [self.call_size.size, whole, len(self.rates) - position.updates]
            if position.updates < PROVED_AFTER:
                limits.append(PROVED_AFTER - position.updates)
            yield int(min(limits)), size

    def _call(self, batches, updates: int, micro: int) -> bool:
        """Makes some updates; says whether there was data for them."""
        run, position = self.run, self.run.position
        began = time.monotonic()
        first = position.updates
        rates = run.rate.scaled(self.rates[first : first + updates])
        if self.watched:
            run.callbacks.on_train_batch_begin(position.batches)
        run.rate.show(rates[-1])
        try:
            with naming_what_xla_lacks(run.setting.jit_compile):
                found = self.steps(batches, rates, micro=micro, first=position.seen)
        except tf.errors.OutOfRangeError:
            return False
        losses, bad, wrong = (value.numpy() for value in found)
        self.call_size.took(updates, time.monotonic() - began)
        if bad >= 0:
            self._refuse(first + int(bad), losses[bad], rates[bad], wrong)
        position.updates += updates
        position.batches += updates * micro
        position.seen += updates * micro
        self.display.step(float(losses[-1]), updates)
        if self.watched:
            logs = run.setting.meters.results()
            run.callbacks.on_train_batch_end(position.batches - 1, logs)
        return True

    def _refuse(self, update: int, loss, rate: float, wrong: np.ndarray) -> None:
        paths = [v.path for v, w in zip(self.steps.variables, wrong, strict=True) if w]
        more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
        of_whom = f"{', '.join(paths[:3])}{more}" if paths else "no variable"
        raise TrainingError(
            f"The loss became {loss} at step {update + 1:,} of phase {self.title!r}, "
            f"with learning rate {rate:.3g}; gradients that are not finite: {of_whom}. "
            "That step was not made: the model has its weights from before it. Lower "
            "the learning rate, add warm-up, clip gradients (optimizer="
            "keras.optimizers.AdamW(global_clipnorm=1.0)), or look for numbers in the "
            "data that are not finite."
        )


def make_measure(
    run: Run, part: keras.Model, validation: Feed | None
) -> Callable[[], dict[str, float]]:
    """A function that measures on the validation data, and gives the figures."""
    if validation is None:
        return dict
    setting, callbacks = run.setting, run.callbacks
    steps = make_test_steps(
        part,
        objective=setting.objective,
        meters=setting.meters,
        strategy=setting.strategy,
    )
    watched = any_of(setting.strategy, watches_batches(callbacks, "test"))
    call_size = CallSize(1 if watched else run.call_size)

    def measure() -> dict[str, float]:
        batches = iter(
            hand_out(validation, None, setting.strategy, full=setting.static_shapes)
        )
        setting.meters.reset()
        callbacks.on_test_begin()
        done = 0
        while done < validation.steps:
            count = min(call_size.size, validation.steps - done)
            began = time.monotonic()
            if watched:
                callbacks.on_test_batch_begin(done)
            steps(batches, count)
            done += count
            call_size.took(count, time.monotonic() - began)
            if watched:
                callbacks.on_test_batch_end(done - 1, setting.meters.results())
        logs = setting.meters.results()
        figures = {f"val_{name}": value for name, value in logs.items()}
        callbacks.on_test_end(logs)
        return figures

    return measure


def watches_batches(
    callbacks: keras.callbacks.CallbackList, mode: str = "train"
) -> bool:
    """Whether any callback wants to know of every batch."""
    plain = keras.callbacks.Callback
    names = [f"on_{mode}_batch_begin", f"on_{mode}_batch_end"]
    if mode == "train":
        names += ["on_batch_begin", "on_batch_end"]
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(plain, name)
        for callback in callbacks.callbacks
        if getattr(callback, "save_freq", None) != "epoch"  # `ModelCheckpoint`'s
        for name in names
    )
