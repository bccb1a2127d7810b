"""Checks arguments of `fit` and `evaluate`; returns options, phases and step counts.

Tested in tests/training/test_fitting.py and tests/training/loop/test_step.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from .. import models
from ..data import Augmentation
from ..encoders import find_encoder
from ..errors import DataError, PlanError
from .feeds.augmented_feed import check_augmentation
from .feeds.feed import Feed, Options
from .feeds.fit_inputs import count_steps
from .loop.optimizer import innermost
from .loop.run import Position
from .plans.schedules import Phase, check_schedule, head_then_all

_BATCH_SIZE = 32  # Keras's default


def feed_options(
    model: keras.Model,
    *,
    batch_size: int | None,
    seed: int = 0,
    shuffle: bool = True,
    fixed_length: bool = False,
    augmentation: Augmentation | None = None,
    verbose: int = 0,
) -> Options:
    """Returns the options by which examples become batches; arguments as for `fit`.

    With `fixed_length`, texts are padded to the maximum length of the model.

    Raises:
        DataError: `batch_size`, `shuffle` or `augmentation` is invalid.
    """
    batch_size = _BATCH_SIZE if batch_size is None else batch_size
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise DataError(f"batch_size must be 1 or more; got {batch_size!r}.")
    if not isinstance(shuffle, (bool, np.bool_)):
        raise DataError(f"shuffle must be True or False; got {shuffle!r}.")
    check_augmentation(augmentation)
    task = models.task_of(model)
    preprocess = None
    if task is not None:
        preprocess = models.preprocessing(model, fixed_length=fixed_length)
    return Options(
        batch_size=int(batch_size),
        seed=seed,
        preprocess=preprocess,
        label_index=task.label_index if task is not None else None,
        classes=task.outputs if task is not None else None,
        shuffle=bool(shuffle),
        augmentation=augmentation,
        verbose=verbose,
    )


def build(model: keras.Model, train: Feed) -> None:
    """Creates the weights of a model that builds itself on its first batch."""
    if not model.built:
        for inputs, *_ in train.batches(None).take(1):
            model(inputs)


def resolve_phases(
    model: keras.Model,
    schedule: Phase | Sequence[Phase] | None,
    epochs: int | None,
    optimizer: Any,
) -> tuple[Phase, ...]:
    """Returns the phases of a schedule, or of the default one; arguments as for `fit`.

    Raises:
        PlanError: The schedule is invalid, or given together with `epochs`.
    """
    if schedule is not None:
        if epochs is not None:
            raise PlanError(
                "The phases of a schedule have their own epochs. Leave epochs out, or "
                "write them into the schedule: tlkit.head_only(epochs=…)."
            )
        return check_schedule(schedule)
    if find_encoder(model) is not None:
        return tuple(head_then_all(**({} if epochs is None else {"epochs": epochs})))
    optimizer = resolve_optimizer(model, optimizer)
    learning_rate = 1e-3
    if optimizer is not None:
        # If the optimizer has a schedule, this is its first rate, which is not used.
        learning_rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    return (Phase("all", epochs=epochs, learning_rate=learning_rate, decay="constant"),)


def resolve_optimizer(
    model: keras.Model, optimizer: Any
) -> keras.optimizers.Optimizer | None:
    """Returns `fit`'s `optimizer`, or else the one the model is compiled with."""
    if optimizer is not None:
        return keras.optimizers.get(optimizer)
    return model.optimizer if model.compiled else None


def accumulation_steps(optimizer: Any, argument: int | None) -> int:
    """Returns the number of batches in an update: the argument, or the optimizer's.

    Raises:
        DataError: The argument is out of range.
    """
    if argument is None:
        if optimizer is None:
            return 1
        return innermost(optimizer).gradient_accumulation_steps or 1
    if not isinstance(argument, (int, np.integer)) or argument < 1:
        raise DataError(
            f"gradient_accumulation_steps must be 1 or more, or None; got {argument!r}."
        )
    return int(argument)


def count_feeds(
    feeds: tuple[Feed, Feed | None], phases: Sequence[Phase], accumulation: int
) -> tuple[Feed, Feed | None]:
    """Returns the feeds, with their batches counted where the loop needs the number.

    Raises:
        PlanError: The training data never ends.
        DataError: The validation data never ends.
    """
    train, validation = feeds
    if train.steps == math.inf and any(phase.steps is None for phase in phases):
        raise PlanError(
            "The training data does not end, so an epoch would not either. Type "
            "steps_per_epoch=…, the number of batches in an epoch, or give each phase "
            "its number of updates: Phase(…, steps=1000)."
        )
    if accumulation > 1 or any(phase.steps is None for phase in phases):
        train = count_steps(train)
    if validation is not None:
        validation = count_steps(validation)
        if validation.steps == math.inf:
            raise DataError(
                "The validation data never ends. Give a part of it: "
                "validation_data=dataset.take(100)."
            )
    return train, validation


def first_position(
    phases: Sequence[Phase], train: Feed, accumulation: int, initial_epoch: int
) -> Position:
    """Returns the position at which a run with `initial_epoch` begins.

    Args:
        phases: The phases of the run.
        train: The training examples, counted.
        accumulation: Batches in one update.
        initial_epoch: As for `fit`.

    Raises:
        PlanError: There are several phases, or no epochs left.
    """
    if not initial_epoch:
        return Position()
    if len(phases) > 1 or phases[0].epochs is None:
        raise PlanError(
            "initial_epoch counts the epochs of one phase, and this schedule has "
            f"{len(phases)} phases, or counts updates. Leave it out. To continue a "
            "run, type directory=…, resume=True, or give the phases that are left."
        )
    if initial_epoch >= phases[0].epochs:
        raise PlanError(
            f"initial_epoch={initial_epoch} leaves no epoch to train: the last one is "
            f"that of epochs={phases[0].epochs}. Type epochs={initial_epoch + 1} or "
            "more, the number of all epochs with the first ones."
        )
    updates = initial_epoch * updates_per_epoch(train, accumulation)
    return Position(
        phase_epochs=initial_epoch,
        updates=updates,
        epoch=initial_epoch,
        seen=initial_epoch * train.steps,
    )


def updates_per_epoch(train: Feed, accumulation: int) -> int | None:
    """Returns the number of updates in an epoch, if it is known and finite."""
    if not isinstance(train.steps, int):
        return None
    return math.ceil(train.steps / accumulation)
