"""A feed whose batches are blended by MixUp or CutMix.

Tested in tests/data/augmentation/test_mixup.py.
"""

import tensorflow as tf

from ...data.augmentation import batch_seed
from ...errors import DataError, TrainingError
from .feed import Feed, Options, WrappedFeed


class BlendedFeed(WrappedFeed):
    """Blends the images and the labels of each batch.

    Args:
        feed: The feed, after all weights of its examples are applied.
        options: The feed's options, with an augmentation that blends.
        classes: How many classes there are.
    """

    def __init__(self, feed: Feed, options: Options, classes: int):
        super().__init__(feed)
        self.options, self.classes = options, classes
        self.repeats = self.has_views = False

    def batches(self, epoch, *, skip=0, part=None):
        worker = 0 if part is None else part.worker

        def blend(number, batch):
            pixels, labels, weights, *present = batch
            seed = batch_seed(self.options.seed, epoch or 0, number, worker=worker)
            pixels, labels, mixed = self.options.augmentation.batch(
                pixels,
                labels,
                seed=seed,
                classes=self.classes,
                weights=None if isinstance(weights, tuple) else _by_example(weights),
            )
            return (pixels, labels, weights if mixed is None else mixed, *present)

        batches = super().batches(epoch, skip=skip, part=part)
        return batches.enumerate(start=skip).map(blend)


def _by_example(weights: tf.Tensor) -> tf.Tensor:
    """Returns weights `[batch]` or `[batch, 1]` as `[batch]`."""
    if weights.shape.rank == 1 or weights.shape[1:] == [1]:
        return tf.reshape(weights, [-1])
    raise DataError(
        "MixUp and CutMix blend examples with one weight each, [batch]; these are "
        f"{weights.shape}. Leave mix_up and cut_mix out."
    )


def blended(feed: Feed, options: Options, classes: int | None) -> Feed:
    """Blends a feed if its augmentation has MixUp or CutMix.

    Args:
        feed: The feed, after all weights of its examples are applied.
        options: The feed's options.
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
    return BlendedFeed(feed, options, classes)
