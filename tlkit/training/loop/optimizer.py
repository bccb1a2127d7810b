"""Builds the optimizer and sets its learning rate.

Tested in tests/training/test_callbacks.py and tests/training/loop/test_step.py.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import keras

from ...errors import TrainingError
from .update_counts import update_counts

_WEIGHT_DECAY = 0.01


def default_optimizer(variables: Sequence[keras.Variable]) -> keras.optimizers.AdamW:
    """Returns AdamW that excludes vectors (biases, norms) from weight decay."""
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=_WEIGHT_DECAY)
    vectors = [variable for variable in variables if len(variable.shape) <= 1]
    optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def build_optimizer(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Creates the slots of all variables that any phase trains.

    An optimizer rejects variables that it was not built with, and a new optimizer would
    lose its moments. Built once for all of them, it can update any subset.

    Raises:
        TrainingError: It was built for other variables before.
    """
    if not optimizer.built:
        optimizer.build(list(variables))
    # Private: no public list of the variables (Keras 3.13 to 3.15).
    # tests/training/test_moving.py notices when it changes.
    known = {id(variable) for variable in optimizer._trainable_variables}
    unknown = [v.path for v in variables if id(v) not in known]
    if unknown:
        raise TrainingError(
            f"The optimizer was built before, and not for {len(unknown):,} of the "
            f"variables to train, such as {unknown[0]}. Give a new one: "
            "tlkit.fit(…, optimizer=keras.optimizers.AdamW())."
        )
    update_counts(optimizer)


def finalize(optimizer: keras.optimizers.Optimizer) -> None:
    """Writes the optimizer's own averages into the weights, as Keras's `fit` does."""
    if optimizer.use_ema:
        # Private: the averages have the order of these variables (Keras 3.13 to 3.15).
        # tests/training/loop/test_update.py notices when it changes.
        optimizer.finalize_variable_values(optimizer._trainable_variables)


class LearningRate:
    """Sets the learning rate of each step, and applies changes that callbacks make.

    Callbacks (`ReduceLROnPlateau`, `LearningRateScheduler`) write to
    `model.optimizer.learning_rate`. Their change becomes a factor on the rates of the
    schedule. An optimizer with a `LearningRateSchedule` of its own uses that instead.

    Args:
        optimizer: The optimizer that trains.
        visible: The one that callbacks see as `model.optimizer`.
    """

    def __init__(self, optimizer, visible: keras.optimizers.Optimizer):
        self.optimizer, self.visible = optimizer, visible
        self.fixed = has_schedule(optimizer)
        self.factor = 1.0
        self.current: float | None = None
        self.weight_decay = getattr(optimizer, "weight_decay", None)

    def begin_phase(self, weight_decay: float | None) -> None:
        """Sets the weight decay, which is read when a step function is traced."""
        if hasattr(self.optimizer, "weight_decay"):
            if weight_decay is None:
                weight_decay = self.weight_decay
            self.optimizer.weight_decay = weight_decay or None

    def scaled(self, rates: Sequence[float]) -> list[float]:
        """Multiplies rates of the schedule by the callbacks' factor."""
        return [float(rate) * self.factor for rate in rates]

    def set(self, rate: float) -> None:
        """Writes a rate to the optimizer, where callbacks read it."""
        if not self.fixed and rate != self.current:
            self.optimizer.learning_rate = rate
            self.current = rate

    @contextlib.contextmanager
    def open_to_callbacks(self, rate: float) -> Iterator[None]:
        """Shows a step's rate to callbacks, and turns their change into the factor."""
        base = float(rate)
        if self.fixed or has_schedule(self.visible) or not base:
            yield
            return
        before = base * self.factor
        self.visible.learning_rate = before
        yield
        after = float(keras.ops.convert_to_numpy(self.visible.learning_rate))
        if not math.isclose(after, before, rel_tol=1e-5):
            self.factor = after / base
        self.current = None


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer has a `LearningRateSchedule` of its own."""
    return isinstance(optimizer.get_config().get("learning_rate"), dict)
