"""Trains and validates for an epoch, many updates in each call of TensorFlow.

Tested in tests/training/loop/test_step.py and tests/training/test_callbacks.py.
"""

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from ...errors import DataError, TrainingError
from ..feeds.feed import Feed
from ..feeds.replica_batches import epoch_iterator, hand_out
from ..strategies.workers import any_worker, worker_count
from .display import Display
from .interrupts import StoppedTraceError
from .loss_and_metrics import EpochMetrics
from .run import Run
from .step import CALL_LIMIT, TrainSteps, make_test_steps
from .xla_check import explaining_xla_errors

# Updates before the first frozen check of a phase. A head of zeros passes no gradient
# to the encoder in the first update.
FIRST_CHECK_UPDATES = 3
_CALL_SECONDS = 0.25


class CallSize:
    """Chooses the number of updates in a call, so that it takes a quarter of a second.

    That is long enough to make the overhead of a call negligible, and short enough to
    show progress and to respond to Ctrl-C.

    Args:
        fixed: The number of updates, or `None` to choose it.
    """

    def __init__(self, fixed: int | None):
        self.size = fixed or 1
        self._fixed = fixed is not None
        self._calls = 0

    def record(self, updates: int, seconds: float) -> None:
        """Adapts the size to a call's duration; ignores the first, which is traced."""
        self._calls += 1
        if not self._fixed and self._calls > 1:
            size = _CALL_SECONDS * updates / max(seconds, 1e-9)
            self.size = int(min(max(size, 1), CALL_LIMIT, 8 * self.size))


class Trainer:
    """Trains the epochs of a phase.

    Args:
        run: The run, whose position is advanced.
        steps: The phase's step functions.
        rates: The schedule's learning rate for each update of the phase.
        title: Name of the phase.
        display: Shows the progress.
        after_call: A function that is called after each call of the step functions.
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
        strategy = run.settings.strategy
        self.batch_hooks = any_worker(strategy, has_batch_hooks(run.callbacks))
        fixed = 1 if self.batch_hooks and run.call_size is None else run.call_size
        self.call_size = CallSize(fixed)

    def train(self, feed: Feed) -> None:
        """Trains to the end of the epoch, or of the phase.

        Raises:
            TrainingError: A gradient is not finite.
            DataError: The data is empty.
        """
        run, position = self.run, self.run.position
        feed.begin_epoch()
        batches = epoch_iterator(
            feed,
            position.epoch,
            run.settings.strategy,
            skip=position.batches,
            seen=position.seen,
            full=run.settings.static_shapes,
        )
        has_ended = feed.steps == 0
        for updates, micro in self._calls(feed):
            if not self._call(batches, updates, micro):
                has_ended = True
                break
            self.after_call()
            if any_worker(run.settings.strategy, run.model.stop_training):
                run.model.stop_training = True
                break
        if has_ended:
            name = f"Epoch {position.epoch + 1}"
            _check_count(feed, position.batches, name, updates_of=run.accumulation)
        feed.end_epoch()

    def _calls(self, feed: Feed) -> Iterator[tuple[int, int]]:
        """Yields the updates and micro-batches of each call, until the epoch ends."""
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
            if position.updates < FIRST_CHECK_UPDATES:
                limits.append(FIRST_CHECK_UPDATES - position.updates)
            yield int(min(limits)), size

    def _call(self, batches, updates: int, micro: int) -> bool:
        """Makes some updates; returns whether there was data for all of them."""
        run, position = self.run, self.run.position
        began = time.monotonic()
        first = position.updates
        planned = self.rates[first : first + updates]
        if self.batch_hooks:
            run.learning_rate.show(planned[0])
            run.callbacks.on_train_batch_begin(position.batches)
            run.learning_rate.agree(run.settings.strategy)
        rates = run.learning_rate.scaled(planned)
        run.learning_rate.show(planned[-1])
        try:
            with (
                explaining_xla_errors(run.settings.jit_compile),
                _stopping_traces(run),
            ):
                results = self.steps(batches, rates, micro=micro, first=position.seen)
        except tf.errors.OutOfRangeError:
            made, bad = self.steps.done_before_end()
            if bad >= 0:
                no_flags = np.zeros(len(self.steps.variables), bool)
                self._raise_not_finite(first + bad, np.nan, rates[bad], no_flags)
            self._advance(made, micro)
            return False
        except StoppedTraceError:
            self.after_call()
            raise  # not reached: `after_call` ends the run after a signal
        losses, bad, flags = (value.numpy() for value in results)
        self.call_size.record(updates, time.monotonic() - began)
        if bad >= 0:
            self._raise_not_finite(first + int(bad), losses[bad], rates[bad], flags)
        self._advance(updates, micro)
        self.display.step(float(losses[-1]), updates)
        if self.batch_hooks:
            logs = run.settings.metrics.results()
            run.callbacks.on_train_batch_end(position.batches - 1, logs)
        return True

    def _advance(self, updates: int, micro: int) -> None:
        position = self.run.position
        position.updates += updates
        position.batches += updates * micro
        position.seen += updates * micro

    def _raise_not_finite(
        self, update: int, loss, rate: float, flags: np.ndarray
    ) -> None:
        variables = zip(self.steps.variables, flags, strict=True)
        paths = [variable.path for variable, not_finite in variables if not_finite]
        more = f" and {len(paths) - 3:,} more" if len(paths) > 3 else ""
        names = f"{', '.join(paths[:3])}{more}" if paths else "no variable"
        raise TrainingError(
            f"The loss became {loss} at step {update + 1:,} of phase {self.title!r}, "
            f"with learning rate {rate:.3g}; variables with a non-finite gradient: "
            f"{names}. That step was not made: the model has the weights before it. "
            "Lower the learning rate, add warm-up, clip gradients (optimizer="
            "keras.optimizers.AdamW(global_clipnorm=1.0)), or look for non-finite "
            "numbers in the data."
        )


def make_validation(
    run: Run, part: keras.Model, validation: Feed | None, leave: Callable[[], None]
) -> Callable[[], dict[str, float]]:
    """Makes a function that evaluates the validation data and returns its logs.

    Args:
        run: The run.
        part: The model; or its remainder, if the feed contains cached activations.
        validation: The validation examples; `None` for no logs.
        leave: Writes a checkpoint and ends the run. It is called after a signal, with
            the weights and metrics as they were before the validation.
    """
    if validation is None:
        return dict
    settings, callbacks = run.settings, run.callbacks
    metrics = settings.metrics
    steps = make_test_steps(part, settings)
    batch_hooks = any_worker(settings.strategy, has_batch_hooks(callbacks, "test"))
    call_size = CallSize(1 if batch_hooks else run.call_size)

    @functools.cache  # TensorFlow would trace its functions again in every epoch.
    def dataset():
        return hand_out(
            validation, None, settings.strategy, full=settings.static_shapes
        )

    def leave_if_interrupted(metric_values: list[np.ndarray]) -> None:
        # Not after a callback's `stop_training`, which a checkpoint does not store.
        received = run.interrupts.received is not None and not run.model.stop_training
        if any_worker(settings.strategy, received):
            for variable, value in zip(_variables(metrics), metric_values, strict=True):
                variable.assign(value)
            with run.averages.swapped():  # `validate` is called with the averages
                leave()

    def validate() -> dict[str, float]:
        if not run.validates(run.position.epoch):
            return {}
        validation.begin_epoch()
        batches = iter(dataset())
        metric_values = []
        if run.interrupts.active:
            metric_values = [
                np.array(tf.convert_to_tensor(v)) for v in _variables(metrics)
            ]
        metrics.reset()
        callbacks.on_test_begin()
        done = 0
        while done < validation.steps:
            count = min(call_size.size, validation.steps - done)
            began = time.monotonic()
            if batch_hooks:
                callbacks.on_test_batch_begin(done)
            made = 0
            with contextlib.suppress(StoppedTraceError), _stopping_traces(run):
                made = steps(batches, count)
            leave_if_interrupted(metric_values)
            done += made
            if made < count:
                _check_count(validation, done, "The validation")
                break
            call_size.record(count, time.monotonic() - began)
            if batch_hooks:
                callbacks.on_test_batch_end(done - 1, metrics.results())
        validation.end_epoch()
        logs = metrics.results()
        validation_logs = {f"val_{name}": value for name, value in logs.items()}
        callbacks.on_test_end(logs)
        return validation_logs

    return validate


def _check_count(
    feed: Feed, given: int, pass_name: str, *, updates_of: int = 1
) -> None:
    """Warns, as Keras does, if the data ended before the counted number of batches.

    Args:
        feed: The data.
        given: The number of batches that it returned in this pass.
        pass_name: The name of the pass in the message, such as `"Epoch 2"`.
        updates_of: The number of batches in an update.

    Raises:
        DataError: It gave no batch at all.
    """
    counted = "" if feed.steps is None else f" of the {feed.steps:,} that were counted"
    message = (
        f"{pass_name} ran out of data: it got {given:,} batches{counted}. A dataset "
        "has to give the same number of batches in every pass; one over a generator or "
        "an iterator gives nothing in the second."
    )
    if updates_of > 1:
        message += f" Batches of an incomplete update, of {updates_of}, do not count."
    if not given:
        raise DataError(message)
    if feed.steps is not None and given < feed.steps:
        warnings.warn(message, stacklevel=2)


def _stopping_traces(run: Run) -> contextlib.AbstractContextManager:
    # With several workers, a trace is not stopped: all must stop after the same call.
    return run.interrupts.stopping_traces(worker_count(run.settings.strategy) == 1)


def _variables(metrics: EpochMetrics) -> list[keras.Variable]:
    return [variable for metric in metrics.all for variable in metric.variables]


def has_batch_hooks(
    callbacks: keras.callbacks.CallbackList, mode: str = "train"
) -> bool:
    """Returns whether any callback overrides a hook that is called for every batch."""
    plain = keras.callbacks.Callback
    names = [f"on_{mode}_batch_begin", f"on_{mode}_batch_end"]
    if mode == "train":
        names += ["on_batch_begin", "on_batch_end"]
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(plain, name)
        for callback in callbacks.callbacks
        if getattr(callback, "save_freq", None) != "epoch"  # of `ModelCheckpoint`
        for name in names
    )
