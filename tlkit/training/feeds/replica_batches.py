"""The batches of a feed, split over the replicas of a strategy.

All replicas get equally many examples. Batches have static shapes where XLA needs them.
Tested in tests/training/strategies/test_mirrored.py and test_workers.py.
"""

from collections.abc import Iterator

import tensorflow as tf

from ...errors import DataError
from ..strategies.workers import worker_count
from .dataset_feed import pad_batch
from .feed import Feed, WorkerPart


def epoch_iterator(
    feed: Feed,
    epoch: int,
    strategy: tf.distribute.Strategy,
    *,
    skip: int,
    seen: int,
    full: bool,
) -> Iterator:
    """Returns an iterator over the batches of a training epoch.

    Args:
        feed, epoch, strategy, full: As for `hand_out`.
        skip: How many batches of the epoch to leave out.
        seen: How many batches the run has had. A feed that continues has one iterator
            for all epochs, which begins after so many batches.
    """
    if not feed.continues:
        return iter(hand_out(feed, epoch, strategy, skip=skip, full=full))
    if feed.open_iterator is None:
        batches = hand_out(feed, epoch, strategy, skip=seen, full=full)
        feed.open_iterator = iter(batches)
    return feed.open_iterator


def hand_out(
    feed: Feed,
    epoch: int | None,
    strategy: tf.distribute.Strategy,
    *,
    skip: int = 0,
    full: bool = False,
):
    """Returns the batches of an epoch, split over the replicas.

    Args:
        feed: The examples.
        epoch: Its number, or `None` for the order of the data.
        strategy: The strategy. Each of several workers reads its own examples only.
        skip: How many batches to leave out at the beginning.
        full: Whether every batch is padded to the batch size (for a user's dataset:
            that of its first batch), so that its shape is static, as XLA requires.

    Returns:
        Elements `(inputs, labels, weights, present)`: `present` is float32, 0 for
        padding examples and 1 for the others, and () where there is no padding.

    Raises:
        DataError: The inputs are strings, which cannot go to several replicas or XLA;
            or the batch size is no multiple of the replicas of several workers.
    """
    replicas = strategy.num_replicas_in_sync
    part = _worker_part(strategy)
    if part is not None:
        _check_multiple(feed, part)
        dataset = feed.batches(epoch, skip=skip, part=part)
        if full:
            size = (feed.batch_size or 0) // part.workers
            size = size or _size_of(feed.batches(None, part=part))
            dataset = _padded(dataset, size)
        local = replicas // part.workers
        dataset = _one_by_one(dataset, local) if local > 1 else dataset
        options = tf.data.Options()
        sharding = tf.data.experimental.AutoShardPolicy.OFF
        options.experimental_distribute.auto_shard_policy = sharding
        dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
        _refuse_strings(dataset, replicas, full)
        return strategy.distribute_datasets_from_function(lambda context: dataset)
    dataset = feed.batches(epoch, skip=skip)
    _refuse_strings(dataset, replicas, full)
    if full:
        size = feed.batch_size or _size_of(feed.batches(None))
        dataset = _padded(dataset, -(-size // replicas) * replicas)
    elif replicas > 1:
        dataset = dataset.map(lambda *batch: pad_batch(batch, replicas))
    else:
        dataset = dataset.map(_all_present)
    if replicas == 1:
        return dataset.prefetch(tf.data.AUTOTUNE)
    return strategy.experimental_distribute_dataset(dataset)


# Traced again in every epoch: AutoGraph would take time, with nothing to convert.
@tf.autograph.experimental.do_not_convert
def _all_present(*batch):
    return (*batch, ())


def _worker_part(strategy: tf.distribute.Strategy) -> WorkerPart | None:
    """Returns the part of this process, or `None` if it is the only one."""
    workers = worker_count(strategy)
    if workers == 1:
        return None
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    worker = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return WorkerPart(workers, worker, strategy.num_replicas_in_sync)


def _check_multiple(feed: Feed, part: WorkerPart) -> None:
    if feed.batch_size is not None and feed.batch_size % part.replicas:
        lower = feed.batch_size // part.replicas * part.replicas
        raise DataError(
            "With several workers, batch_size must be a multiple of their "
            f"{part.replicas} replicas; got {feed.batch_size}. Type batch_size="
            f"{lower or part.replicas}."
        )


def _one_by_one(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Splits each batch into smaller ones of equal size, one for each replica."""

    def split(tensor):
        shape = tf.concat([[replicas, -1], tf.shape(tensor)[1:]], axis=0)
        parts = tf.reshape(tensor, shape)
        parts.set_shape([replicas, None, *tensor.shape[1:]])
        return parts

    return dataset.map(lambda *b: tf.nest.map_structure(split, b)).unbatch()


def _padded(dataset: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Pads every batch to a size, and marks padding as `present` 0."""

    def to_size(*batch):
        *batch, present = pad_batch(batch, size)
        if len(batch) == 4:
            present *= batch.pop()
        shape = lambda t: tf.ensure_shape(t, [size, *t.shape[1:]])
        return tf.nest.map_structure(shape, (*batch, present))

    return dataset.map(to_size)


def _size_of(dataset: tf.data.Dataset) -> int:
    """Returns the number of examples in the first batch."""
    for batch in dataset.take(1):
        return int(tf.shape(tf.nest.flatten(batch)[0])[0])
    raise DataError("The data has no batch.")


def _refuse_strings(dataset: tf.data.Dataset, replicas: int, full: bool) -> None:
    inputs = tf.nest.flatten(dataset.element_spec[0])
    strings = any(spec.dtype == tf.string for spec in inputs)
    if strings and (replicas > 1 or full):
        raise DataError(
            "The model takes strings, and these cannot go to several replicas or "
            "through XLA. Turn them into numbers in the data (dataset.map), or train "
            "on one device without jit_compile."
        )
