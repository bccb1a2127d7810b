"""Turns the arguments of `fit` and `evaluate` into feeds, phases and numbers.

Tested in tests/training/test_fitting.py and tests/training/loop/test_step.py.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import models
from ..data import Augmentation, Splits
from ..encoders import find_encoder
from ..errors import DataError, PlanError
from .feeds.augmented_feed import check_augmentation
from .feeds.blended_feed import blended
from .feeds.class_weighted_feed import weigh_classes
from .feeds.feed import Feed, Options
from .feeds.fit_inputs import count_steps, make_feed
from .plans.schedules import Phase, check_schedule, head_then_all


def feed_options(
    model: keras.Model,
    *,
    batch_size: int,
    seed: int = 0,
    fixed_length: bool = False,
    augmentation: Augmentation | None = None,
    verbose: int = 0,
) -> Options:
    """Returns how raw examples become a model's batches; arguments as for `fit`.

    With `fixed_length`, texts are padded to the maximum length of the model.

    Raises:
        DataError: `batch_size` or `augmentation` is invalid.
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise DataError(f"batch_size must be 1 or more; got {batch_size!r}.")
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
        augmentation=augmentation,
        verbose=verbose,
    )


def make_feeds(
    model: keras.Model,
    x: Any,
    y: Any,
    validation_data: Any,
    class_weight: Any,
    options: Options,
) -> tuple[Feed, Feed | None]:
    """Makes the training feed and the validation feed; arguments as for `fit`.

    Raises:
        DataError: The data is invalid.
    """
    validation = validation_data
    if isinstance(x, Splits):
        if y is not None:
            raise DataError("Splits contain their labels. Leave y out.")
        _check_labels(model, x)
        validation = x.validation if validation is None else validation
        x = x.train
    train = weigh_classes(make_feed(x, y, None, options), class_weight, options)
    train = blended(train, options, _class_count(model))
    options = dataclasses.replace(options, augmentation=None)
    if validation is None:
        return train, None
    if isinstance(validation, tf.data.Dataset):
        return train, make_feed(validation, None, None, options)
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise DataError(
            "validation_data must be (x, y), (x, y, weights) or a tf.data.Dataset. "
            f"Received: {type(validation).__name__}."
        )
    inputs, labels, *rest = validation
    return train, make_feed(inputs, labels, rest[0] if rest else None, options)


def _class_count(model: keras.Model) -> int | None:
    """Returns the size of a model's output `[batch, classes]`; `None` for others."""
    shape = getattr(model, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None


def _check_labels(model: keras.Model, splits: Splits) -> None:
    task = models.task_of(model)
    if task is not None and tuple(task.labels) != tuple(splits.labels):
        raise DataError(
            "The model and the data must have the same labels in the same order. The "
            f"model has {list(task.labels)}, the data {list(splits.labels)}. Build the "
            "model with splits.labels."
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
        # A schedule of its own may begin at 0; this rate is not used then.
        current = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        learning_rate = current or learning_rate
    return (Phase("all", epochs=epochs, learning_rate=learning_rate, decay="constant"),)


def resolve_optimizer(
    model: keras.Model, optimizer: Any
) -> keras.optimizers.Optimizer | None:
    """Returns `fit`'s argument, or the optimizer that the model is compiled with."""
    if optimizer is not None:
        return keras.optimizers.get(optimizer)
    return model.optimizer if model.compiled else None


def accumulation_steps(optimizer: Any, argument: int | None) -> int:
    """Returns the number of batches in an update: the argument, or the optimizer's.

    Raises:
        DataError: It is out of range.
    """
    if argument is None:
        return getattr(optimizer, "gradient_accumulation_steps", None) or 1
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
        DataError: The validation data never ends.
    """
    train, validation = feeds
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


def updates_per_epoch(train: Feed, accumulation: int) -> int | None:
    """Returns the number of updates in an epoch, if it is known and finite."""
    if not isinstance(train.steps, int):
        return None
    return math.ceil(train.steps / accumulation)
