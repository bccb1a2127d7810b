"""How `tf.data` runs what tlkit reads with: in parallel, in order, without its tuner.

A thread of `tf.data` tunes parallelism in longer and longer periods: 10 ms, doubled
each time. An iterator that is let go of waits for that thread, and some epochs then
last until such a period is over: 2.55, 5.11, 10.23 or 20.47 seconds from their
beginning, up to twice their work. Seen with TensorFlow 2.21, gone without the tuner:
`python -m tests.benchmarks.epoch_ends`. The likely cause, which the lengths suggest, is
that the thread is woken before it can see that it is cancelled, and goes on sleeping.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

# Private, since nothing public shuffles by one seed alone: see `shuffled`.
from tensorflow.python.eager import context

_MOST_BATCHES = 16


def parallel_map(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    batched: bool = False,
    autograph: bool = False,
) -> tf.data.Dataset:
    """A map on all cores, whose results stay in order.

    Args:
        dataset: What is mapped.
        function: Takes the parts of an element.
        batched: Whether elements are batches, of which fewer are made at a time.
        autograph: Whether `if` and `for` in the function, and in what it calls, may be
            meant for tensors. Here they never are, and AutoGraph takes a tenth of a
            second to find that out.
    """
    if not autograph:
        function = tf.autograph.experimental.do_not_convert(function)
    # In numbers: AUTOTUNE means 16 at most without a tuner. Results that wait for their
    # turn take up places, and threads that hand one over are not at work: with as many
    # calls and threads as cores, pictures came a fourth more slowly. A batch of them
    # may take 20 MB, and a machine for TPUs has a hundred cores and more.
    cores = _cores()
    calls = min(cores, _MOST_BATCHES) if batched else 4 * cores
    mapped = dataset.map(function, num_parallel_calls=calls, deterministic=True)
    options, given = tf.data.Options(), mapped.options().threading
    if given.private_threadpool_size is None:
        options.threading.private_threadpool_size = 2 * cores
    # The calls keep all cores busy. That an op of one waits for threads that are in
    # another cost pictures a twentieth.
    if given.max_intra_op_parallelism is None:
        options.threading.max_intra_op_parallelism = 1
    return mapped.with_options(options)


def deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, which says that its order matters, without a tuner."""
    options = tf.data.Options()
    options.deterministic = True
    return untuned(dataset.with_options(options))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset without a tuner, unless its options ask for one."""
    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def shuffled(dataset: tf.data.Dataset, buffer: int, seed: int) -> tf.data.Dataset:
    """The same dataset in an order that the seed alone decides, each time the same.

    TensorFlow shuffles by two seeds, the second of which is `tf.random.set_seed`'s: a
    job would read in another order, and could not be resumed, in a process that has
    set another.
    """
    eager = context.context()
    before = eager._seed
    eager._seed = None
    try:
        return dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
    finally:
        eager._seed = before


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
