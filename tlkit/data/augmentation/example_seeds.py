"""Seeds that depend on which example it is, and on nothing that happened before.

A generator that counts what it has drawn gives an example other numbers when batches
come in another order, workers are more, or a run is resumed. So nothing is counted
here: the numbers are a hash of the seed, the epoch and the
example's place in the data.
"""

from __future__ import annotations

import tensorflow as tf

from ...errors import DataError

_EXAMPLES, _BATCHES = 1, 2


def example_seed(
    seed: int | tf.Tensor, epoch: int | tf.Tensor, index: int | tf.Tensor
) -> tf.Tensor:
    """The seed of what happens to one example in one epoch.

    Args:
        seed: The run's, an integer.
        epoch: Which epoch, an integer; or which view, see `view_number`.
        index: The example's place in the data before it is shuffled, an integer.

    Returns:
        Int32 `[2]`, as `tf.random.stateless_uniform` takes it. Seeds of neighboring
        epochs and examples have nothing in common.
    """
    return _hashed(_EXAMPLES, seed, epoch, index)


def batch_seed(
    seed: int | tf.Tensor,
    epoch: int | tf.Tensor,
    number: int | tf.Tensor,
    *,
    worker: int | tf.Tensor = 0,
) -> tf.Tensor:
    """The seed of how the examples of one batch are blended.

    Args:
        seed: The run's, an integer.
        epoch: Which epoch, an integer.
        number: Which batch of the epoch, an integer, whether or not some were skipped.
        worker: Which of several processes that share the batch. Each blends what it
            has of it, so the number of processes makes a difference.

    Returns:
        Int32 `[2]`, as `example_seed` gives it; it is that of no example.
    """
    return _hashed(_BATCHES, seed, epoch, number, worker)


def view_number(epoch: int, views: int) -> int:
    """Which of several views of its examples an epoch sees.

    A cache of activations that holds a few augmented views of every example takes this
    number for the epoch in `example_seed`.

    Args:
        epoch: Which epoch, from 0.
        views: How many views there are, at least 1.

    Returns:
        From 0 up to `views`: epochs take turns.

    Raises:
        DataError: `views` is less than 1.
    """
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise DataError(f"views must be an integer of 1 or more; got {views!r}.")
    return epoch % views


def part_seed(seed: tf.Tensor, part: int) -> tf.Tensor:
    """The seed of one of the things that happen to an example: a number for each.

    So switching one of them on or off leaves the others as they were.
    """
    return tf.random.experimental.stateless_fold_in(seed, part)


def uniform(
    seed: tf.Tensor, shape=(), *, low: float = 0.0, high: float = 1.0
) -> tf.Tensor:
    """Float32 from `low` up to `high`."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def integers(seed: tf.Tensor, shape=(), *, below: int | tf.Tensor) -> tf.Tensor:
    """Int32 from 0 up to `below`."""
    return tf.random.stateless_uniform(shape, seed, 0, below, tf.int32)


def _hashed(kind: int, *numbers) -> tf.Tensor:
    words = tf.constant([kind, 0], tf.int64)
    *first, last = [tf.cast(number, tf.int64) for number in numbers]
    for number in first:
        words = _any_integers(_joined(words, number), tf.int64)
    return _any_integers(_joined(words, last), tf.int32)


def _joined(words: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    return tf.stack([words[0], tf.bitwise.bitwise_xor(words[1], number)])


def _any_integers(seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.random.stateless_uniform((2,), seed, None, None, dtype)
