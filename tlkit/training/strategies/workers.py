"""Communication between a strategy's workers, and errors that name a lost worker."""

import contextlib
import functools
import numbers
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ...launching import read_cluster
from .rendezvous import is_listening, worker_list


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of a strategy's processes; 1 unless it has several workers."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that prints and writes files.

    It is true in one of the workers, and under every strategy of one process.
    """
    if worker_count(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().as_dict():
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def broadcast_from_chief(
    strategy: tf.distribute.Strategy, values: Sequence[int | float]
) -> list[int | float]:
    """Returns the chief's values in every worker, bit for bit.

    All workers must call it, with the same number of values of the same types.

    Args:
        strategy: The strategy.
        values: Numbers; integers from -2**63 to 2**63 - 1.
    """
    if worker_count(strategy) == 1 or not values:
        return list(values)
    bits = [
        np.int64(value)
        if isinstance(value, numbers.Integral)
        else np.float64(value).view(np.int64)
        for value in values
    ]
    # Only the chief adds its values to the sum; the other workers add zeros.
    terms = np.array(bits) if is_chief(strategy) else np.zeros(len(bits), np.int64)
    total = _sum_over_workers(strategy, terms)
    return [
        type(value)(bit)
        if isinstance(value, numbers.Integral)
        else float(bit.view(np.float64))
        for value, bit in zip(values, total, strict=True)
    ]


def any_worker(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Returns whether a flag is set in any worker. All workers must call it."""
    return any_worker_each(strategy, [flag])[0]


def any_worker_each(
    strategy: tf.distribute.Strategy, flags: Sequence[bool]
) -> list[bool]:
    """Returns for each flag whether any worker sets it; takes a few milliseconds.

    All workers must call it, with the same number of flags.
    """
    if worker_count(strategy) == 1:
        return [bool(flag) for flag in flags]
    terms = np.array([bool(flag) for flag in flags], np.int64)
    return [bool(total) for total in _sum_over_workers(strategy, terms)]


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns TensorFlow's error after the loss of a worker into one that names it.

    TensorFlow notices within 10 s, by heartbeats, and then aborts all collectives. The
    strategy cannot be used any more, and the process has to end.

    Raises:
        TrainingError: A worker is lost.
    """
    try:
        yield
    except tf.errors.OpError as error:
        is_lost = "Collective ops is aborted" in str(error)
        if worker_count(strategy) == 1 or not is_lost:
            raise
        raise TrainingError(
            f"{_lost_workers()} The other workers cannot continue alone. Restart all, "
            "or let python -m tlkit.launch do so; fit(…, resume=True) resumes from the "
            "last checkpoint."
        ) from error


def _lost_workers() -> str:
    cluster = read_cluster(os.environ)
    others = {} if cluster is None else cluster.others()
    for _ in range(10):  # TensorFlow may notice before a lost worker's port is closed
        lost = {name: at for name, at in others.items() if not is_listening(at)}
        if lost:
            return f"Lost: {worker_list(lost)}."
        time.sleep(0.3)
    return "A worker was lost, or did not respond for more than 10 s."


def _sum_over_workers(
    strategy: tf.distribute.Strategy, values: np.ndarray
) -> np.ndarray:
    """Returns the sum of int64 values over the workers."""
    with naming_lost_workers(strategy):
        return _sum_function(strategy)(tf.constant(values)).numpy()


@functools.cache  # traced once for a strategy
def _sum_function(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    local_replicas = strategy.num_replicas_in_sync // worker_count(strategy)

    def in_replica(values):
        context = tf.distribute.get_replica_context()
        # Only the first replica of each worker adds its values.
        first = context.replica_id_in_sync_group % local_replicas == 0
        # The reduction needs a tensor that was created on the replica's device.
        values = tf.where(first, values, tf.zeros_like(values))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def over_workers(values):
        per_replica = strategy.run(in_replica, args=(values,))
        return strategy.experimental_local_results(per_replica)[0]

    return over_workers
