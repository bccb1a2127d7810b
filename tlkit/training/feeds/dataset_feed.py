"""The feed of a user's batched `tf.data.Dataset`.

Tested in tests/training/feeds/test_feeds.py.
"""

import math

import tensorflow as tf

from ...data.examples import parallel_map, untuned
from .feed import Feed, Options, WorkerPart


class DatasetFeed(Feed):
    """A feed of batches as a dataset gives them, in its order.

    It may shuffle or augment, so its examples may differ between epochs.

    Args:
        dataset: Elements `(inputs, labels, weights)`, batched; the weights may be ().
        options: How texts are tokenized.
    """

    def __init__(self, dataset: tf.data.Dataset, options: Options):
        steps = int(dataset.cardinality())
        special = {
            tf.data.INFINITE_CARDINALITY: math.inf,
            tf.data.UNKNOWN_CARDINALITY: None,
        }
        self.steps = special.get(steps, steps)
        inputs = dataset.element_spec[0]
        is_text = isinstance(inputs, tf.TensorSpec) and inputs.dtype == tf.string
        if options.preprocess is not None and is_text:
            dataset = parallel_map(
                dataset,
                lambda texts, *rest: (options.preprocess.batch(texts), *rest),
                batched=True,
            )
        self.dataset = untuned(dataset)

    def batches(
        self, epoch: int | None, *, skip: int = 0, part: WorkerPart | None = None
    ) -> tf.data.Dataset:
        rest = self.dataset.skip(skip)
        if part is None:
            return rest

        def rows_of_worker(*batch):
            # Every worker reads the whole dataset, and takes its rows.
            padded = pad_batch(batch, part.replicas)
            return tf.nest.map_structure(
                lambda tensor: tensor[part.worker :: part.workers], padded
            )

        return rest.map(rows_of_worker)


def pad_batch(batch: tuple, multiple: int | tf.Tensor) -> tuple:
    """Pads a batch to a multiple of rows by repeating rows.

    Returns:
        The parts of the batch, and float32 `[rows]`: 0 for padding rows, 1 for others.
    """
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    rows = tf.range(-(-count // multiple) * multiple)
    batch = tf.nest.map_structure(lambda t: tf.gather(t, rows % count), batch)
    return (*batch, tf.cast(rows < count, tf.float32))
