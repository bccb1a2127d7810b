"""Feeds of pictures that are changed at random, anew in each epoch.

Weights of classes: each example weighs as much as its class says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...data.augmentation import batch_seed, example_seed
from ...data.examples import access_of, attach_access, buffer_size
from ...errors import DataError, TrainingError
from .feed import Feed, Options, Share, rows_feed, shared_out


@dataclasses.dataclass(frozen=True)
class _Changed:
    """Preprocesses a raw picture, and then changes it as its place and epoch say."""

    options: Options
    epoch: int
    per_example = True

    def __call__(self, raw: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        picture, place = raw
        seed = example_seed(self.options.seed, self.epoch, place)
        pixels = self.options.preprocess(picture)
        return self.options.augmentation.example(pixels, seed)


def augmented(dataset: tf.data.Dataset, feed: Feed, options: Options) -> Feed:
    """The feed of a split whose pictures are changed before they are trained on.

    Args:
        dataset: Elements `(raw, label, weight)`, not batched.
        feed: The feed of it as it is.
        options: How examples become batches; with an augmentation.

    Raises:
        DataError: These are no pictures, or their number is not known.
    """
    if not getattr(options.preprocess, "per_example", False) or feed.examples is None:
        raise DataError(
            "augmentation is for pictures, from tlkit.data or in arrays, and models of "
            "tlkit.image_classifier. Leave it out, or change the pictures of your own "
            "dataset with dataset.map(…)."
        )
    placed = _with_places(dataset)

    def batches(epoch: int | None, *, skip: int = 0, share: Share | None = None):
        if epoch is None:
            return feed.batches(None, skip=skip, share=share)
        return data.batches(
            placed,
            _Changed(options, epoch),
            batch_size=options.batch_size,
            shuffle=True,
            seed=options.seed,
            epoch=epoch,
            skip=skip,
            **shared_out(share),
        )

    def view(number: int) -> tf.data.Dataset:
        return data.batches(
            placed, _Changed(options, number), batch_size=options.batch_size
        )

    buffer = buffer_size(dataset, options.preprocess)
    return dataclasses.replace(
        feed,
        batches=batches if options.augmentation.changes_examples else feed.batches,
        repeats=False,
        view=view,
        with_rows=lambda *table, views=1: rows_feed(
            *table, options, buffer=buffer, views=views
        ),
        digest=lambda: f"{feed.digest()} {options.augmentation} {options.seed}",
    )


def _with_places(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same examples, each with its place in the data beside the raw picture."""
    beside = lambda place, example: ((example[0], place), *example[1:])
    access = access_of(dataset)
    placed = dataset.enumerate().map(beside)
    if access is None:
        return placed

    def read(places: np.ndarray) -> tf.data.Dataset:
        with tf.device("CPU"):
            numbers = tf.data.Dataset.from_tensor_slices(np.asarray(places, np.int64))
        return tf.data.Dataset.zip(numbers, access.read(places)).map(beside)

    return attach_access(
        placed, dataclasses.replace(access, read=read, shuffled=None, in_order=False)
    )


def stacked(feed: Feed, views: int) -> Feed:
    """A feed of several augmented views of all examples, one after the other.

    What is made of it with `with_rows` has the examples themselves again, and its
    epochs take turns with the views.

    Args:
        feed: Any feed; one without augmentation comes back as it is.
        views: How many views, at least 1.
    """
    if feed.view is None:
        return feed
    count = feed.examples
    first = lambda marks: tf.nest.map_structure(lambda mark: mark[:count], marks)

    def batches(epoch: int | None) -> tf.data.Dataset:
        dataset = feed.view(0)
        for number in range(1, views):
            dataset = dataset.concatenate(feed.view(number))
        return dataset

    return dataclasses.replace(
        feed,
        batches=batches,
        steps=feed.steps * views,
        examples=count * views,
        with_rows=lambda rows, *marks: feed.with_rows(
            rows, *map(first, marks), views=views
        ),
        digest=lambda: f"{feed.digest()} {views}",
    )


def blended(feed: Feed, options: Options, classes: int | None) -> Feed:
    """The same feed with batches blended by MixUp or CutMix, if that is wanted.

    Args:
        feed: The feed, with all weights on its examples.
        options: How examples become batches.
        classes: How many outputs the model has, one for each class.

    Raises:
        TrainingError: The model is no classifier.
    """
    augmentation = options.augmentation
    if augmentation is None or not augmentation.blends:
        return feed
    if not classes or classes < 2:
        raise TrainingError(
            "MixUp and CutMix mix the labels of classes, and this model is no "
            "classifier with an output for each class. Leave mix_up and cut_mix out."
        )

    def batches(epoch: int | None, *, skip: int = 0, share: Share | None = None):
        dataset = feed.batches(epoch, skip=skip, share=share)
        worker = 0 if share is None else share.worker

        def blend(number, batch):
            pixels, labels, weights, *present = batch
            seed = batch_seed(options.seed, epoch or 0, number, worker=worker)
            given = None if isinstance(weights, tuple) else weights
            pixels, labels, mixed = augmentation.batch(
                pixels, labels, seed=seed, classes=classes, weights=given
            )
            return (pixels, labels, weights if mixed is None else mixed, *present)

        return dataset.enumerate(start=skip).map(blend)

    return dataclasses.replace(feed, batches=batches, repeats=False, view=None)


def check_augmentation(augmentation: Any) -> None:
    """Raises a `DataError` unless it is one."""
    if augmentation is not None and not isinstance(augmentation, data.Augmentation):
        raise DataError(
            "augmentation must be a tlkit.data.Augmentation, such as "
            f"tlkit.data.Augmentation(flip=None); got {augmentation!r}."
        )


# === Class weights ===


def weigh_classes(
    feed: Feed, class_weight: Mapping[int | str, float] | None, options: Options
) -> Feed:
    """The same feed, with each example's weight multiplied by that of its class.

    Args:
        feed: The feed.
        class_weight: Weights by the index or the name of the label; 1 for classes that
            are not there.
        options: Those that the feed was made with.

    Raises:
        DataError: A label is unknown, or a weight is not a number of 0 or more.
    """
    if not class_weight:
        return feed
    weights = {_class_index(key, options): w for key, w in class_weight.items()}
    wrong = [w for w in weights.values() if not (np.isscalar(w) and 0 <= w < math.inf)]
    if wrong:
        raise DataError(f"class_weight must be numbers of 0 or more; got {wrong[0]!r}.")
    keys = tf.constant(list(weights), tf.int64)
    values = tf.constant(list(weights.values()), tf.float32)

    def weigh(inputs, labels, old, *present):
        hits = tf.cast(_classes(labels)[:, tf.newaxis] == keys, tf.float32)
        new = tf.reduce_sum(hits * (values - 1.0), axis=1) + 1.0
        new = new if isinstance(old, tuple) else old * new
        return (inputs, labels, new, *present)

    def by_size():
        order, batches = feed.by_size()
        return order, batches.map(weigh)

    return dataclasses.replace(
        feed,
        batches=lambda epoch, **which: feed.batches(epoch, **which).map(weigh),
        by_size=by_size if feed.by_size else None,
        marks=lambda: weigh(None, *feed.marks())[1:],
    )


def _class_index(key, options: Options) -> int:
    if isinstance(key, str):
        if options.label_index is None:
            raise DataError(
                f"class_weight names the label {key!r}, but this model has no names of "
                "labels. Give their indices."
            )
        return options.label_index(key)
    if isinstance(key, (int, np.integer)) and key >= 0:
        return int(key)
    raise DataError(f"class_weight is by index or name of a label; got {key!r}.")


def _classes(labels: tf.Tensor) -> tf.Tensor:
    if labels.shape.rank == 2 and labels.shape[-1] != 1:
        return tf.argmax(labels, axis=-1)
    return tf.cast(tf.reshape(labels, [-1]), tf.int64)
