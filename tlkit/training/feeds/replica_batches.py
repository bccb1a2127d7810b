"""Batches go to replicas: as many examples for each, and static shapes where wanted."""

from __future__ import annotations

import tensorflow as tf

from ...errors import DataError
from ..strategies.workers import count as workers_of
from .feed import Feed, Share
from .fit_inputs import fill


def hand_out(
    feed: Feed,
    epoch: int | None,
    strategy: tf.distribute.Strategy,
    *,
    skip: int = 0,
    full: bool = False,
):
    """The batches of an epoch, split over the replicas.

    Args:
        feed: The examples.
        epoch: Its number, or `None` for the order of the data.
        strategy: Where they go. Each of several workers reads its own examples only.
        skip: How many batches to leave out at the beginning.
        full: Whether every batch is filled up to the batch size (of a dataset of the
            user's: that of its first batch), so that its shape is known, as XLA wants.

    Returns:
        Elements `(inputs, labels, weights, present)`: `present` is 0 for examples that
        only fill up, and () where none do.

    Raises:
        DataError: The inputs are strings, and would have to reach a device; or the
            workers cannot share a batch.
    """
    replicas = strategy.num_replicas_in_sync
    share = _share(strategy)
    if share is not None:
        _check_multiple(feed, share)
        dataset = feed.batches(epoch, skip=skip, share=share)
        if full:
            size = (feed.batch_size or 0) // share.workers
            size = size or _size_of(feed.batches(None, share=share))
            dataset = _filled(dataset, size)
        local = replicas // share.workers
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
        dataset = _filled(dataset, -(-size // replicas) * replicas)
    elif replicas > 1:
        dataset = dataset.map(lambda *batch: fill(batch, replicas))
    else:
        dataset = dataset.map(_all_present)
    if replicas == 1:
        return dataset.prefetch(tf.data.AUTOTUNE)
    return strategy.experimental_distribute_dataset(dataset)


# Every epoch maps anew, and AutoGraph has nothing to convert.
@tf.autograph.experimental.do_not_convert
def _all_present(*batch):
    return (*batch, ())


def _share(strategy: tf.distribute.Strategy) -> Share | None:
    """The share of this process, or `None` if it is the only one."""
    workers = workers_of(strategy)
    if workers == 1:
        return None
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    worker = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    return Share(workers, worker, strategy.num_replicas_in_sync)


def _check_multiple(feed: Feed, share: Share) -> None:
    if feed.batch_size is not None and feed.batch_size % share.replicas:
        lower = feed.batch_size // share.replicas * share.replicas
        raise DataError(
            "With several workers, batch_size must be a multiple of their "
            f"{share.replicas} replicas; got {feed.batch_size}. Type batch_size="
            f"{lower or share.replicas}."
        )


def _one_by_one(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Splits each batch, which has a multiple of the replicas, into one for each."""

    def split(tensor):
        shape = tf.concat([[replicas, -1], tf.shape(tensor)[1:]], axis=0)
        parts = tf.reshape(tensor, shape)
        parts.set_shape([replicas, None, *tensor.shape[1:]])
        return parts

    return dataset.map(lambda *b: tf.nest.map_structure(split, b)).unbatch()


def _filled(dataset: tf.data.Dataset, size: int) -> tf.data.Dataset:
    def to_size(*batch):
        *batch, present = fill(batch, size)
        if len(batch) == 4:
            present *= batch.pop()
        shape = lambda t: tf.ensure_shape(t, [size, *t.shape[1:]])
        return tf.nest.map_structure(shape, (*batch, present))

    return dataset.map(to_size)


def _size_of(dataset: tf.data.Dataset) -> int:
    """Examples in the first batch."""
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
