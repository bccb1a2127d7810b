"""Converts the data arguments of `tlkit.fit`, which are named as Keras's, into feeds.

Tested in tests/training/test_data_arguments.py.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras

from .. import models
from ..data import Splits
from ..data.examples import is_integer
from ..errors import DataError
from .feeds.blended_feed import blended
from .feeds.class_weighted_feed import weigh_classes
from .feeds.epoch_steps import with_steps
from .feeds.feed import Feed, Options
from .feeds.fit_inputs import brings_labels, feed_of_columns, make_feed
from .feeds.input_arrays import Columns, columns_of
from .feeds.label_check import LabelRange, check_labels
from .loop.compiled_model import is_index_loss


@dataclasses.dataclass(frozen=True)
class DataArguments:
    """The arguments of `fit` about its data.

    Attributes:
        x, y, sample_weight, class_weight: As for `fit`.
        validation_data, validation_split, validation_steps, validation_batch_size,
        validation_freq: As for `fit`.
        batch_size, steps_per_epoch, initial_epoch: As for `fit`.

    Raises:
        DataError: An argument is out of its range, or has no effect with the others.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None
    class_weight: Mapping[int | str, float] | str | None = None
    validation_data: Any = None
    validation_split: float = 0.0
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: int | list[int] = 1
    batch_size: int | None = None
    steps_per_epoch: int | None = None
    initial_epoch: int = 0

    def __post_init__(self):
        for name in ("validation_steps", "validation_batch_size", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None and not is_integer(value, 1):
                raise DataError(f"{name} must be 1 or more, or None; got {value!r}.")
        if not is_integer(self.initial_epoch, 0):
            raise DataError(
                f"initial_epoch must be 0 or more; got {self.initial_epoch!r}."
            )
        epochs = self.validation_freq
        epochs = epochs if isinstance(epochs, (list, tuple, set)) else [epochs]
        if not epochs or not all(is_integer(epoch, 1) for epoch in epochs):
            raise DataError(
                "validation_freq must be a number of epochs, 1 or more, or a list of "
                f"epochs, such as [1, 2, 10]; got {self.validation_freq!r}."
            )
        self._check_validation()
        if isinstance(self.x, Splits):
            for name in ("y", "sample_weight"):
                if getattr(self, name) is not None:
                    raise DataError(
                        f"Splits contain their labels and weights. Leave {name} out."
                    )

    def _check_validation(self) -> None:
        split = self.validation_split
        if split and self.validation_data is not None:
            raise DataError(
                "validation_data and validation_split exclude each other: Keras would "
                "ignore the second one. Leave one of them out."
            )
        if split and (isinstance(self.x, Splits) or brings_labels(self.x)):
            raise DataError(
                "validation_split is for arrays and texts; x is of "
                f"{type(self.x).__name__}. "
                + (
                    "Splits have their own validation split. Leave validation_split "
                    "out."
                    if isinstance(self.x, Splits)
                    else "Type validation_data=x.take(n) and x.skip(n) for a dataset."
                )
            )
        splits = isinstance(self.x, Splits) and self.x.validation is not None
        if split or splits or self.validation_data is not None:
            return
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name in ("validation_steps", "validation_batch_size", "validation_freq"):
            if getattr(self, name) != defaults[name]:
                raise DataError(
                    f"{name} is given, but no validation data. Give "
                    "validation_data=(x, y) or validation_split=0.2 too."
                )

    def validates(self, epoch: int) -> bool:
        """Returns whether to evaluate the model after an epoch, given its index."""
        if isinstance(self.validation_freq, (list, tuple, set)):
            return epoch + 1 in self.validation_freq
        return (epoch + 1) % self.validation_freq == 0


def make_feeds(
    model: keras.Model, data: DataArguments, options: Options, *, loss: Any = None
) -> tuple[Feed, Feed | None]:
    """Makes the training feed and the validation feed, and checks their labels.

    Args:
        model: The model.
        data: The arguments about data.
        options: How examples become batches.
        loss: As for `fit`, to know which labels are valid.

    Raises:
        DataError: The data is invalid.
    """
    x, validation = data.x, data.validation_data
    if isinstance(x, Splits):
        _check_label_names(model, x)
        validation = x.validation if validation is None else validation
        x = x.train
    allowed = label_range(model, loss)
    held_out = None
    if brings_labels(x):
        train = make_feed(x, data.y, data.sample_weight, options, once=True)
    else:
        columns = columns_of(x, data.y, data.sample_weight, options)
        if data.validation_split:
            columns, held_out = columns.split(data.validation_split)
        options = _sized(options, data.batch_size, columns, data.steps_per_epoch)
        train = feed_of_columns(columns, options)
    train = with_steps(train, data.steps_per_epoch, first_epoch=data.initial_epoch)
    if allowed is not None:
        train = check_labels(train, allowed, "training")
    classes = _class_count(model)
    train = weigh_classes(train, data.class_weight, options, classes)
    train = blended(train, options, classes)
    # As in Keras, the batch size of the training data is the default.
    batch_size = data.validation_batch_size or data.batch_size
    options = dataclasses.replace(
        options,
        augmentation=None,
        shuffle=False,
        batch_size=batch_size or options.batch_size,
    )
    feed = _validation_feed(validation, held_out, data, options, batch_size)
    if feed is not None and allowed is not None:
        feed = check_labels(feed, allowed, "validation")
    return train, feed


def label_range(model: keras.Model, loss: Any = None) -> LabelRange | None:
    """Returns the labels that a classifier can learn; `None` for other models.

    Args:
        model: The model. One that is not built yet is not checked.
        loss: The loss; by default that of the model's `compile`, or of its task.
    """
    task = models.task_of(model)
    if loss is None:
        loss = model.loss if model.compiled else task and task.loss()
    shape = getattr(model, "output_shape", None)
    one_output = isinstance(shape, tuple) and len(shape) >= 2
    if not one_output or not isinstance(shape[-1], int) or shape[-1] < 2:
        return None
    sparse = keras.losses.SparseCategoricalCrossentropy
    ignored = None
    if isinstance(loss, sparse):
        ignored = loss.ignore_class
        if getattr(loss, "axis", -1) not in (-1, len(shape) - 1):
            return None
    elif not is_index_loss(loss):
        return None
    names = () if task is None else tuple(task.labels)
    return LabelRange(shape[-1], len(shape), ignored, names)


def _validation_feed(
    validation: Any,
    held_out: Columns | None,
    data: DataArguments,
    options: Options,
    batch_size: int | None,
) -> Feed | None:
    """Returns the feed of the validation data, or `None`."""
    steps = data.validation_steps
    if held_out is None and validation is None:
        return None
    if held_out is None and brings_labels(validation):
        if hasattr(validation, "__next__") and steps is None:
            raise DataError(
                "A generator does not tell how many batches it has. Type "
                "validation_steps=…, the number of batches to validate with."
            )
        return make_feed(validation, None, None, options, steps=steps)
    if held_out is None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise DataError(
                "validation_data must be (x, y), (x, y, weights), a tf.data.Dataset, a "
                "generator, a PyDataset or a data loader. Received: "
                f"{type(validation).__name__}."
            )
        inputs, labels, *rest = validation
        held_out = columns_of(inputs, labels, rest[0] if rest else None, options)
    if steps is not None:
        options = _sized(options, batch_size, held_out, steps)
    return feed_of_columns(held_out, options, steps=steps)


def _sized(
    options: Options, batch_size: int | None, columns: Columns, steps: int | None
) -> Options:
    """Returns options; without a `batch_size`, they get one that makes `steps`."""
    if batch_size is not None or steps is None:
        return options
    return dataclasses.replace(options, batch_size=math.ceil(len(columns) / steps))


def _class_count(model: keras.Model) -> int | None:
    """Returns the number of classes of an output `[batch, classes]`, else `None`."""
    shape = getattr(model, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 else None


def _check_label_names(model: keras.Model, splits: Splits) -> None:
    task = models.task_of(model)
    if task is not None and tuple(task.labels) != tuple(splits.labels):
        raise DataError(
            "The model and the data must have the same labels in the same order. The "
            f"model has {list(task.labels)}, the data {list(splits.labels)}. Build the "
            "model with splits.labels."
        )
