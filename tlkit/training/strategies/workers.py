"""Workers: how several processes agree, and notice that one of them is gone."""

from __future__ import annotations

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
from .rendezvous import answers, listed
from .rendezvous import connect as connect


def count(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together under a strategy.

    Args:
        strategy: Any.

    Returns:
        1 for every strategy of one process.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return max(1, sum(len(jobs.get(job, ())) for job in ("chief", "worker")))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that prints and writes.

    Args:
        strategy: Any.

    Returns:
        True in one of the workers, and under every strategy of one process.
    """
    if count(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().as_dict():
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def agree(
    strategy: tf.distribute.Strategy, values: Sequence[int | float]
) -> list[int | float]:
    """Gives every worker the chief's values, to the bit.

    All workers must call it, with as many values of the same types.

    Args:
        strategy: Any.
        values: Numbers; whole ones from -2**63 to 2**63 - 1.

    Returns:
        The chief's.
    """
    if count(strategy) == 1 or not values:
        return list(values)
    bits = [
        np.int64(value)
        if isinstance(value, numbers.Integral)
        else np.float64(value).view(np.int64)
        for value in values
    ]
    own = np.array(bits) if is_chief(strategy) else np.zeros(len(bits), np.int64)
    found = _sum(strategy, own)
    return [
        type(value)(bit)
        if isinstance(value, numbers.Integral)
        else float(bit.view(np.float64))
        for value, bit in zip(values, found, strict=True)
    ]


def any_of(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether a flag is set in any worker.

    All workers must call it.

    Args:
        strategy: Any.
        flag: That of this worker.

    Returns:
        The same in every worker.
    """
    return any_of_each(strategy, [flag])[0]


def any_of_each(strategy: tf.distribute.Strategy, flags: Sequence[bool]) -> list[bool]:
    """The same for several flags, at the cost of one: some milliseconds.

    Args:
        strategy: Any.
        flags: Those of this worker, as many as in every other.

    Returns:
        For each, whether it is set in any worker.
    """
    if count(strategy) == 1:
        return [bool(flag) for flag in flags]
    own = np.array([bool(flag) for flag in flags], np.int64)
    return [bool(found) for found in _sum(strategy, own)]


def _sum(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """The sum of int64 values over the workers."""
    with naming_lost_workers(strategy):
        return _make_sum(strategy)(tf.constant(values)).numpy()


@functools.cache  # traced once for a strategy
def _make_sum(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    local = strategy.num_replicas_in_sync // count(strategy)

    def of_replica(values):
        context = tf.distribute.get_replica_context()
        # One replica speaks for its worker.
        first = context.replica_id_in_sync_group % local == 0
        # The reduction needs a tensor that was made on the replica's device.
        values = tf.where(first, values, tf.zeros_like(values))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)], autograph=False)
    def over_workers(values):
        return strategy.experimental_local_results(
            strategy.run(of_replica, args=(values,))
        )[0]

    return over_workers


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns what TensorFlow raises when a worker is gone into an error that names it.

    TensorFlow notices within 10 s, by heartbeats, and then aborts what the others wait
    for. The strategy cannot be used any more, and the process has to end.

    Args:
        strategy: Any.

    Raises:
        TrainingError: A worker is gone.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if count(strategy) == 1 or "Collective ops is aborted" not in str(error):
            raise
        raise TrainingError(
            f"{_gone()} The workers left cannot go on alone. Start all again, or let "
            "python -m tlkit.launch do so; fit(…, resume=True) goes on from the last "
            "checkpoint."
        ) from error


def _gone() -> str:
    cluster = read_cluster(os.environ)
    others = {} if cluster is None else cluster.others()
    for _ in range(10):  # the news may come before the system has closed its ports
        silent = {name: at for name, at in others.items() if not answers(at)}
        if silent:
            return f"Lost: {listed(silent)}."
        time.sleep(0.3)
    return "A worker was lost, or stood still for more than 10 s."
