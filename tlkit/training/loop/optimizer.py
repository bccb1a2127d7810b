"""The optimizer, and who sets its learning rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import keras

from ...errors import TrainingError
from .update_counts import update_counts

_WEIGHT_DECAY = 0.01


def default_optimizer(variables: Sequence[keras.Variable]) -> keras.optimizers.AdamW:
    """AdamW that spares vectors (biases, norms) from weight decay."""
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=_WEIGHT_DECAY)
    vectors = [variable for variable in variables if len(variable.shape) <= 1]
    optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def build_optimizer(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Makes the slots of everything that any phase trains.

    An optimizer refuses what it was not built with, and one that is made anew begins
    its moments and its step count anew. Built for all of it once, it takes any part.

    Raises:
        TrainingError: It was built for other variables before.
    """
    if not optimizer.built:
        optimizer.build(list(variables))
        update_counts(optimizer)
        return
    known = {id(variable) for variable in optimizer._trainable_variables}
    unknown = [v.path for v in variables if id(v) not in known]
    if unknown:
        raise TrainingError(
            f"The optimizer was built before, and not for {len(unknown):,} of the "
            f"variables that are to be trained, such as {unknown[0]}. Give a fresh "
            "one: tlkit.fit(…, optimizer=keras.optimizers.AdamW())."
        )
    update_counts(optimizer)


def finalize(optimizer: keras.optimizers.Optimizer) -> None:
    """Puts the optimizer's own averages into the weights, as Keras's `fit` does."""
    if optimizer.use_ema:
        # Private: the averages stand in the order of what it was built for.
        optimizer.finalize_variable_values(optimizer._trainable_variables)


class Rate:
    """Sets the learning rate step by step, and heeds callbacks that change it.

    Callbacks (`ReduceLROnPlateau`, `LearningRateScheduler`) write to
    `model.optimizer.learning_rate`. What they change it by, is kept as a factor on the
    rates of the schedule. An optimizer with a `LearningRateSchedule` of its own keeps
    that.

    Args:
        optimizer: The one that trains.
        shown: The one that callbacks see as `model.optimizer`.
    """

    def __init__(self, optimizer, shown: keras.optimizers.Optimizer):
        self.optimizer, self.shown = optimizer, shown
        self.fixed = has_schedule(optimizer)
        self.factor = 1.0
        self.current: float | None = None
        self.weight_decay = getattr(optimizer, "weight_decay", None)

    def begin_phase(self, weight_decay: float | None) -> None:
        """Sets the weight decay, which is read when a step function is traced."""
        if hasattr(self.optimizer, "weight_decay"):
            wanted = self.weight_decay if weight_decay is None else weight_decay
            self.optimizer.weight_decay = wanted or None

    def scaled(self, rates: Sequence[float]) -> list[float]:
        """The schedule's rates of some steps, with what callbacks made of them."""
        return [float(rate) * self.factor for rate in rates]

    def show(self, rate: float) -> None:
        """Writes a rate to the optimizer, where callbacks look it up."""
        if not self.fixed and rate != self.current:
            self.optimizer.learning_rate = rate
            self.current = rate

    @contextlib.contextmanager
    def heeding_callbacks(self, rate: float) -> Iterator[None]:
        """Shows callbacks a step's rate, and takes over what they make of it."""
        base = float(rate)
        shown = base * self.factor
        if self.fixed or has_schedule(self.shown) or not base:
            yield
            return
        self.shown.learning_rate = shown
        yield
        found = float(keras.ops.convert_to_numpy(self.shown.learning_rate))
        if not math.isclose(found, shown, rel_tol=1e-5):
            self.factor = found / base
        self.current = None


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer decides on its learning rate itself."""
    return isinstance(optimizer.get_config().get("learning_rate"), dict)
