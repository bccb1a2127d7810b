"""A feed of images that are augmented, differently in each epoch.

Tested in tests/data/augmentation/test_augmentation.py.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from ... import data
from ...data.augmentation import example_seed
from ...data.examples import Examples, examples_of
from ...errors import DataError
from .feed import Options, WrappedFeed, worker_arguments
from .splits_feed import SplitsFeed

_ONLY_IMAGES = (
    "augmentation is for images, from tlkit.data or in arrays, and models of "
    "tlkit.image_classifier. Leave it out, or change the images of your own dataset "
    "with dataset.map(…)."
)


@dataclasses.dataclass(frozen=True)
class _AugmentingPreprocess:
    """Preprocesses and augments an image, with a seed from its index and the epoch."""

    options: Options
    epoch: int
    per_example = True

    def __call__(self, raw: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, index = raw
        seed = example_seed(self.options.seed, self.epoch, index)
        pixels = self.options.preprocess(image)
        return self.options.augmentation.example(pixels, seed)


class AugmentedFeed(WrappedFeed):
    """Augments each image after it is preprocessed.

    Args:
        feed: The feed of the images; its options have an augmentation.

    Raises:
        DataError: The examples are not images, or their number is not known.
    """

    def __init__(self, feed: SplitsFeed):
        super().__init__(feed)
        self.options = feed.options
        per_example = getattr(self.options.preprocess, "per_example", False)
        if not per_example or feed.examples is None:
            raise DataError(_ONLY_IMAGES)
        self.repeats, self.has_views = False, True
        self._indexed = _with_indices(feed.dataset)

    def batches(self, epoch, *, skip=0, part=None):
        if epoch is None or not self.options.augmentation.changes_examples:
            return super().batches(epoch, skip=skip, part=part)
        return data.batches(
            self._indexed,
            _AugmentingPreprocess(self.options, epoch),
            batch_size=self.options.batch_size,
            shuffle=self.options.shuffle,
            seed=self.options.seed,
            epoch=epoch,
            skip=skip,
            **worker_arguments(part),
        )

    def view(self, number):
        return data.batches(
            self._indexed,
            _AugmentingPreprocess(self.options, number),
            batch_size=self.options.batch_size,
        )

    def digest(self):
        return f"{super().digest()} {self.options.augmentation} {self.options.seed}"


def refuse_augmentation(options: Options) -> None:
    """Rejects augmenting single examples of data that can only be blended.

    These are a user's batches, and the inputs of a model that tlkit did not build.
    MixUp and CutMix blend the examples of a batch.
    """
    augmentation = options.augmentation
    if augmentation is not None and augmentation.changes_examples:
        blend = (
            ""
            if not augmentation.blends
            else (
                " For MixUp and CutMix alone, type tlkit.data.Augmentation(crop=None, "
                "flip=None, mix_up=…)."
            )
        )
        raise DataError(_ONLY_IMAGES + blend)


def check_augmentation(augmentation: Any) -> None:
    """Raises a `DataError` unless it is `None` or a `tlkit.data.Augmentation`."""
    if augmentation is not None and not isinstance(augmentation, data.Augmentation):
        raise DataError(
            "augmentation must be a tlkit.data.Augmentation, such as "
            f"tlkit.data.Augmentation(flip=None); got {augmentation!r}."
        )


def _with_indices(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Pairs each raw image with its index in the data."""
    pair = lambda index, example: ((example[0], index), *example[1:])
    stream = lambda: dataset.enumerate().map(pair)
    examples = examples_of(dataset)
    if examples is None:
        return stream()

    def read(indices: np.ndarray) -> tf.data.Dataset:
        with tf.device("CPU"):
            numbers = tf.data.Dataset.from_tensor_slices(np.asarray(indices, np.int64))
        return tf.data.Dataset.zip(numbers, examples.read(indices)).map(pair)

    return Examples(examples.labels, read, stream).dataset()
