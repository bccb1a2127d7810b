"""`tf.data` pipelines: parallel, in order, and without the autotuner.

The autotuner, a thread of `tf.data`, tunes parallelism in periods that double from
10 ms. An iterator that is deleted waits for this thread, so some epochs end only when a
period ends: 2.55, 5.11, 10.23 or 20.47 s after their beginning, which can double their
time. Measured with TensorFlow 2.21; without the autotuner there is no wait (`python -m
tests.benchmarks.epoch_ends`). A likely cause: the thread is woken before it can see
that it is cancelled, and goes back to sleep.
"""

import os
from collections.abc import Callable

import tensorflow as tf

# Private API: no public function shuffles by one seed alone, see `shuffled`. If
# TensorFlow removes it, tests/data/examples/test_example_order.py fails.
from tensorflow.python.eager import context

_MAX_BATCHES = 16  # at a time: a batch may take 20 MB, and a TPU host has 96 cores


def parallel_map(
    dataset: tf.data.Dataset,
    function: Callable,
    *,
    batched: bool = False,
    autograph: bool = False,
) -> tf.data.Dataset:
    """Maps a function over a dataset on all cores; the results stay in order.

    Args:
        dataset: The elements.
        function: Called with the parts of an element as its arguments.
        batched: Whether elements are batches, of which fewer are computed at a time.
        autograph: Whether to convert `if` and `for` over tensors in the function. The
            functions of tlkit have none, and AutoGraph takes 0.1 s to find that out.
    """
    if not autograph:
        function = tf.autograph.experimental.do_not_convert(function)
    # Without the autotuner, AUTOTUNE means 16 parallel calls at most. With only one
    # call and one thread per core, decoding images was a fourth slower: a result that
    # waits for its turn still counts as a call, and a thread that hands over a result
    # does no other work.
    cores = _cores()
    calls = min(cores, _MAX_BATCHES) if batched else 4 * cores
    mapped = dataset.map(function, num_parallel_calls=calls, deterministic=True)
    options, given = tf.data.Options(), mapped.options().threading
    if given.private_threadpool_size is None:
        options.threading.private_threadpool_size = 2 * cores
    # The calls keep all cores busy; more threads inside an op cost 5 % for images.
    if given.max_intra_op_parallelism is None:
        options.threading.max_intra_op_parallelism = 1
    return mapped.with_options(options)


def deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset with its order kept and the autotuner switched off."""
    options = tf.data.Options()
    options.deterministic = True
    return untuned(dataset.with_options(options))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Switches the autotuner off, unless the dataset's options already set it."""
    if dataset.options().autotune.enabled is not None:
        return dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def shuffled(dataset: tf.data.Dataset, buffer: int, seed: int) -> tf.data.Dataset:
    """Shuffles a dataset in an order that depends on the seed alone.

    TensorFlow shuffles by two seeds; the second is the global seed of
    `tf.random.set_seed`. With another global seed, a process would read in another
    order, so it could not resume a run.
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
