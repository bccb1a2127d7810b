"""The default optimizer, and functions for every optimizer of Keras.

Tested in tests/training/loop/test_learning_rate.py and
tests/training/loop/test_update.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras

_WEIGHT_DECAY = 0.01


def default_optimizer(variables: Sequence[keras.Variable]) -> keras.optimizers.AdamW:
    """Returns AdamW that excludes vectors (biases, norms) from weight decay."""
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=_WEIGHT_DECAY)
    vectors = [variable for variable in variables if len(variable.shape) <= 1]
    optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Returns the optimizer inside a `LossScaleOptimizer`; others as they are.

    A `LossScaleOptimizer` has weight decay, clipping, averages and accumulation too,
    but Keras ignores them and uses those of the inner optimizer.
    """
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer computes its learning rate itself.

    That is the case if its learning rate is a `LearningRateSchedule` or a function.
    """
    return not isinstance(innermost(optimizer).learning_rate, keras.Variable)


def finalize(optimizer: keras.optimizers.Optimizer) -> None:
    """Calls `finalize_variable_values`, as Keras's `fit` does at its end.

    An optimizer with `use_ema` then sets the weights to their moving averages.
    """
    # Private: the averages have the order of these variables (Keras 3.13 to 3.15).
    # tests/training/loop/test_update.py notices when it changes.
    optimizer.finalize_variable_values(innermost(optimizer)._trainable_variables)


@contextlib.contextmanager
def replaced_attributes(instance: Any, **values: Any) -> Iterator[None]:
    """Replaces attributes of an object in a `with` block, then restores them.

    It writes past Keras's `__setattr__`, which would add variables to the object's own.
    """
    before = {name: vars(instance)[name] for name in values if name in vars(instance)}
    vars(instance).update(values)
    try:
        yield
    finally:
        for name in values:
            del vars(instance)[name]
        vars(instance).update(before)
