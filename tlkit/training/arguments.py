"""What `fit` and `evaluate` were given becomes feeds, phases and an optimizer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from .. import models
from ..data import Augmentation, Splits
from ..encoders import find_encoder
from ..errors import DataError, PlanError
from .feeds.augmented import blended, check_augmentation, weigh_classes
from .feeds.feed import Feed, Options
from .feeds.fit_inputs import count_steps, make_feed
from .plans.schedules import Phase, check_schedule, head_then_all


def options_for(
    model: keras.Model,
    *,
    batch_size: int,
    seed: int = 0,
    fixed_length: bool = False,
    augmentation: Augmentation | None = None,
    verbose: int = 0,
) -> Options:
    """How raw examples become a model's batches.

    Args:
        model: The model.
        batch_size: Examples in a batch.
        seed: Decides the order.
        fixed_length: Whether texts are padded to the longest that the model takes.
        augmentation: What is done to the pictures to train on.
        verbose: 0 for silence.

    Raises:
        DataError: `batch_size` is out of range.
    """
    whole = isinstance(batch_size, (int, np.integer)) and batch_size >= 1
    if not whole:
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


def feeds_for(
    model: keras.Model, x, y, validation_data, class_weight, options: Options
) -> tuple[Feed, Feed | None]:
    """The examples to train on, and those to measure with; as for `fit`."""
    given = validation_data
    if isinstance(x, Splits):
        if y is not None:
            raise DataError("Splits bring their labels. Leave y out.")
        _check_labels(model, x)
        given = x.validation if given is None else given
        x = x.train
    train = weigh_classes(make_feed(x, y, None, options), class_weight, options)
    train = blended(train, options, _classes(model))
    options = dataclasses.replace(options, augmentation=None)
    if given is None:
        return train, None
    if isinstance(given, tf.data.Dataset):
        return train, make_feed(given, None, None, options)
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise DataError(
            "validation_data must be (x, y), (x, y, weights) or a tf.data.Dataset. "
            f"Received: {type(given).__name__}."
        )
    weights = given[2] if len(given) == 3 else None
    return train, make_feed(given[0], given[1], weights, options)


def _classes(model: keras.Model) -> int | None:
    """How many outputs a model has for each example, if it has one row of them."""
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
    """Makes the weights of a model that waits for its first batch."""
    if not model.built:
        for inputs, *_ in train.batches(None).take(1):
            model(inputs)


def phases_for(model: keras.Model, schedule, epochs, optimizer) -> tuple[Phase, ...]:
    """The phases of a schedule, or of the default one; as for `fit`."""
    if schedule is not None:
        if epochs is not None:
            raise PlanError(
                "A schedule says how many epochs each phase has. Leave epochs out, or "
                "write them into the schedule: tlkit.head_only(epochs=…)."
            )
        return check_schedule(schedule)
    if find_encoder(model) is not None:
        return tuple(head_then_all(**({} if epochs is None else {"epochs": epochs})))
    optimizer = given_optimizer(model, optimizer)
    rate = 1e-3
    if optimizer is not None:
        # A schedule of its own may begin at 0; then this is not used.
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate)) or rate
    return (Phase("all", epochs=epochs, learning_rate=rate, decay="constant"),)


def accumulation_of(optimizer, wanted: int | None) -> int:
    """How many batches make one update: the argument, or what the optimizer says.

    Raises:
        DataError: It is out of range.
    """
    if wanted is None:
        return getattr(optimizer, "gradient_accumulation_steps", None) or 1
    if not isinstance(wanted, (int, np.integer)) or wanted < 1:
        raise DataError(
            f"gradient_accumulation_steps must be 1 or more, or None; got {wanted!r}."
        )
    return int(wanted)


def count_steps_for(
    feeds: tuple[Feed, Feed | None], phases: Sequence[Phase], accumulation: int
) -> tuple[Feed, Feed | None]:
    """The feeds, with their batches counted where the loop has to know.

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


def updates_of(train: Feed, accumulation: int) -> int | None:
    """How many updates an epoch has, if that is known and finite."""
    if not isinstance(train.steps, int):
        return None
    return math.ceil(train.steps / accumulation)


def given_optimizer(model: keras.Model, optimizer) -> keras.optimizers.Optimizer | None:
    """The user's optimizer: the argument, or what the model was compiled with."""
    if optimizer is not None:
        return keras.optimizers.get(optimizer)
    return model.optimizer if model.compiled else None
