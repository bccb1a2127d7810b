"""Sets the learning rate of each update, from the schedule and from callbacks.

Callbacks write to `model.optimizer.learning_rate`, in any of their hooks. A rate that a
callback assigns is absolute: it replaces the planned rates until a callback assigns
another one or the phase ends. A reduction by `ReduceLROnPlateau` is relative: its
factor multiplies the planned rates until the phase ends, so warm-up and decay go on.

Tested in tests/training/loop/test_learning_rate.py.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ...errors import TrainingError
from ..strategies.workers import broadcast_from_chief
from .optimizer import has_schedule, innermost, replaced_attributes


class LearningRate:
    """Sets the learning rate of each step, and applies changes that callbacks make.

    If the optimizer has its own `LearningRateSchedule`, that one sets the rates.

    Args:
        optimizer: The optimizer that trains, which callbacks see as `model.optimizer`.

    Attributes:
        absolute: The rate that a callback has assigned in this phase, or `None`.
        factor: The product of the reductions by `ReduceLROnPlateau` in this phase.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self.optimizer = optimizer
        self.fixed = has_schedule(optimizer)
        self.absolute: float | None = None
        self.factor = 1.0
        self._decays = {
            name: value
            for name, value in vars(innermost(optimizer)).items()
            if name in ("weight_decay", "adam_weight_decay")  # Muon has both
        }
        self._variable = None if self.fixed else optimizer.learning_rate
        self._shown: float | None = None
        self._is_cut = False

    def begin_phase(self, weight_decay: float | None) -> None:
        """Sets the optimizer's weight decay; call it before a step is traced."""
        for name, decay in self._decays.items():
            decay = decay if weight_decay is None else weight_decay
            setattr(innermost(self.optimizer), name, decay or None)

    def reset(self) -> None:
        """Drops the rates that callbacks have set, for the next phase."""
        self.absolute, self.factor = None, 1.0

    def scaled(self, rates: Sequence[float]) -> list[float]:
        """Returns the rates to use for steps whose planned rates are `rates`."""
        if self.absolute is not None:
            rates = [self.absolute] * len(rates)
        return [float(rate) * self.factor for rate in rates]

    def show(self, planned: float) -> None:
        """Writes the rate of a step to the optimizer, where callbacks read it.

        Args:
            planned: The schedule's rate of the step.

        Raises:
            TrainingError: A callback has replaced the rate by a `LearningRateSchedule`.
        """
        if self.fixed:
            return
        if self.optimizer.learning_rate is not self._variable:
            raise TrainingError(
                "A callback assigned a LearningRateSchedule to optimizer.learning_rate "
                "in training. Assign a number, or give the schedule to the optimizer "
                "before: tlkit.fit(…, optimizer=keras.optimizers.AdamW(schedule))."
            )
        (rate,) = self.scaled([planned])
        if rate != self._shown:
            self._write(rate)

    def agree(self, strategy: tf.distribute.Strategy) -> None:
        """Gives all workers the rates that the callbacks of the chief have set."""
        values = [self.absolute is not None, self.absolute or 0.0, self.factor]
        is_set, absolute, self.factor = broadcast_from_chief(strategy, values)
        self.absolute = absolute if is_set else None

    def state(self) -> dict[str, float | None]:
        """Returns the rates that callbacks have set, for a checkpoint."""
        return {"factor": self.factor, "absolute": self.absolute}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned; checkpoints of tlkit 0.1 lack `absolute`."""
        self.factor, self.absolute = state["factor"], state.get("absolute")

    # === Callbacks ===

    @contextlib.contextmanager
    def open_to_callbacks(
        self, callbacks: Sequence[keras.callbacks.Callback]
    ) -> Iterator[None]:
        """Records in a context each rate that callbacks assign to the optimizer.

        At the end, restores the optimizer's learning rate and weight decay.
        """
        initial = None if self.fixed else self._current()
        with contextlib.ExitStack() as stack:
            if not self.fixed:
                stack.enter_context(self._noticed_writes())
            for callback in callbacks:
                if isinstance(callback, keras.callbacks.ReduceLROnPlateau):
                    hook = functools.partial(self._cutting, callback.on_epoch_end)
                    stack.enter_context(
                        replaced_attributes(callback, on_epoch_end=hook)
                    )
            try:
                yield
            finally:
                if initial is not None:
                    self._write(initial)
                for name, decay in self._decays.items():
                    setattr(innermost(self.optimizer), name, decay)

    @contextlib.contextmanager
    def _noticed_writes(self) -> Iterator[None]:
        # All ways to set the rate end in the variable's `assign`. Comparing values
        # would miss a callback that assigns the rate that is planned for this step.
        # `load_weights` of a callback also assigns the rate, and must have no effect.
        load = functools.partial(self._loading, self.optimizer.load_own_variables)
        with (
            replaced_attributes(self._variable, assign=self._assign),
            replaced_attributes(self.optimizer, load_own_variables=load),
        ):
            yield

    def _assign(self, value: Any) -> Any:
        before = self._current()
        result = type(self._variable).assign(self._variable, value)
        after = self._current()
        self._shown = after
        if self._is_cut and before:
            self.factor *= after / before
        else:
            self.absolute, self.factor = after, 1.0
        return result

    def _cutting(self, on_epoch_end: Callable, *arguments: Any, **options: Any) -> None:
        self._is_cut = True
        try:
            on_epoch_end(*arguments, **options)
        finally:
            self._is_cut = False

    def _loading(self, load_own_variables: Callable, store: Any) -> None:
        state = self.state()
        load_own_variables(store)
        self.set_state(state)
        self._shown = None

    def _current(self) -> float:
        return float(keras.ops.convert_to_numpy(self._variable))

    def _write(self, rate: float) -> None:
        type(self._variable).assign(self._variable, rate)
        self._shown = rate
