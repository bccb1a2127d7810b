"""Counts the updates of each variable, as the bias corrections of optimizers need it.

Adam, Adamax, Lamb, Nadam and Adafactor divide by numbers that depend on the number of
updates. Keras has one count for the whole optimizer. If a block is unfrozen after 2,325
updates, its moments are zero but are no longer corrected, so its first steps are three
to six times too large. Here each variable has its own count.
"""

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .optimizer import innermost, replaced_attributes

# After this many factors of Nadam's product, 1 - 0.96**i / 2 is 1 in float32.
_NADAM_FACTORS = 1000


class UpdateCounts:
    """The number of updates of each variable of an optimizer.

    Args:
        optimizer: A built optimizer, not a `LossScaleOptimizer`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self.optimizer = optimizer
        self.values: list[tf.Variable] = []
        self._by_id: dict[int, tf.Variable] = {}
        self._iterations = 0

    def align(self) -> None:
        """Creates counts for new variables, and adds the updates that Keras has made.

        Keras's own `fit` counts its updates in `iterations` only. They are added to the
        counts of the variables whose slots are not all zero.
        """
        # Private: the order of the slots (Keras 3.13 to 3.15).
        # tests/training/loop/test_update_counts.py notices when it changes.
        variables = self.optimizer._trainable_variables
        for variable in variables:
            if id(variable) not in self._by_id:
                count = tf.Variable(0, dtype=tf.int64, trainable=False)
                self._by_id[id(variable)] = count
        self.values = [self._by_id[id(variable)] for variable in variables]
        by_keras = int(self.optimizer.iterations.numpy()) - self._iterations
        if by_keras > 0:
            for variable, count in zip(variables, self.values, strict=True):
                count.assign_add(by_keras if self._is_updated(variable) else 0)
        self.record_iterations()

    def record_iterations(self) -> None:
        """Records that the counts include all `iterations` of the optimizer so far."""
        self._iterations = int(self.optimizer.iterations.numpy())

    def of(self, variable_id: int) -> tf.Variable | None:
        """Returns the int64 scalar count of the variable with an `id`, or `None`."""
        return self._by_id.get(variable_id)

    def estimate(self, variables: Sequence[keras.Variable]) -> None:
        """Estimates counts that were not recorded, from the optimizer's state.

        Args:
            variables: The variables whose counts to set: to 0 if all slots of the
                variable are zero, else to the optimizer's `iterations`.
        """
        iterations = int(self.optimizer.iterations.numpy())
        for variable in variables:
            count = self.of(id(variable))
            if count is not None:
                count.assign(iterations if self._is_updated(variable) else 0)

    def _is_updated(self, variable: keras.Variable) -> bool:
        prefix = f"{variable.path.replace('/', '_')}_"
        slots = [v for v in self.optimizer.variables if v.name.startswith(prefix)]
        return not slots or any(np.any(slot.numpy()) for slot in slots)

    def counted(self, step):
        """Wraps an optimizer's step so that it uses and increments a variable's count.

        Args:
            step: A function of a gradient, a `tf.Variable` and a learning rate, such as
                `optimizer.update_step`.

        Returns:
            A function of the same arguments.
        """

        def step_with_count(gradient, value, rate):
            count = self.values[self.optimizer._get_variable_index(value)]
            with self._in_place_of_iterations(tf.convert_to_tensor(count)):
                step(gradient, value, rate)
            count.assign_add(1)

        return step_with_count

    @contextlib.contextmanager
    def applied_by_keras(self) -> Iterator[None]:
        """Makes `optimizer.apply` use the counts, while a step function is traced."""
        step = self.counted(self.optimizer.update_step)
        with replaced_attributes(self.optimizer, update_step=step):
            yield

    @contextlib.contextmanager
    def _in_place_of_iterations(self, count: tf.Tensor) -> Iterator[None]:
        # Private names, read by the optimizers' steps (Keras 3.13 to 3.15).
        # tests/training/loop/test_update_counts.py notices when they change.
        attributes: dict[str, Any] = {"_iterations": count}
        if isinstance(self.optimizer, keras.optimizers.Nadam):
            attributes["_u_product"] = _nadam_product(self.optimizer, count + 1)
        with replaced_attributes(self.optimizer, **attributes):
            yield


# Weak keys: the counts live as long as their optimizer, through several `fit`.
_COUNTS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def update_counts(optimizer: keras.optimizers.Optimizer) -> UpdateCounts:
    """Returns the `UpdateCounts` of an optimizer; creates them in the first call.

    A later `fit` with the same optimizer continues the counts.

    Args:
        optimizer: A built optimizer; of a `LossScaleOptimizer`, the inner one is used.
            The first call must be in the scope of its strategy.
    """
    optimizer = innermost(optimizer)
    counts = _COUNTS.get(optimizer)
    if counts is None:
        counts = _COUNTS[optimizer] = UpdateCounts(optimizer)
        counts.align()
    return counts


@contextlib.contextmanager
def counted_updates(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Records at the end of a context that its updates are counted already."""
    try:
        yield
    finally:
        update_counts(optimizer).record_iterations()


def counts_by_name(
    optimizer: keras.optimizers.Optimizer, names: Mapping[int, str]
) -> dict[str, tf.Variable]:
    """Returns an optimizer's counts by name, for a checkpoint; empty if it has none.

    Args:
        optimizer: The optimizer.
        names: Names of variables by their `id`.
    """
    counts = _COUNTS.get(innermost(optimizer))
    if counts is None:
        return {}
    by_name = {f"{name}/updates": counts.of(id_) for id_, name in names.items()}
    return {name: count for name, count in by_name.items() if count is not None}


def _nadam_product(optimizer, updates: tf.Tensor) -> tf.Tensor:
    """Computes the product of momenta that Keras's Nadam accumulates in a variable."""
    # The product of beta_1 * (1 - 0.96**i / 2) for i = 1, 2, …; the table contains the
    # products of the second factor, which approaches 1.
    factors = 1 - 0.5 * 0.96 ** np.arange(_NADAM_FACTORS, dtype=np.float64)
    factors[0] = 1.0
    table = tf.constant(np.cumprod(factors), tf.float32)
    schedule = tf.gather(table, tf.minimum(updates, _NADAM_FACTORS - 1))
    return schedule * tf.pow(float(optimizer.beta_1), tf.cast(updates, tf.float32))
