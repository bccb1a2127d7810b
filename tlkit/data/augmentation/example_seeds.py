"""Seeds that depend only on the run's seed, the epoch and the example.

From a stateful generator, an example would get other random numbers if batches came in
another order, the number of workers changed, or a run was resumed. So an example's seed
is a hash of the run's seed, the epoch and the example's index in the data.

Tested in tests/data/augmentation/test_augmentation.py.
"""

import numbers

import tensorflow as tf

from ...errors import DataError

_EXAMPLES, _BATCHES = 1, 2


def example_seed(
    seed: int | tf.Tensor, epoch: int | tf.Tensor, index: int | tf.Tensor
) -> tf.Tensor:
    """Computes the seed of one example in one epoch.

    Args:
        seed: The run's seed, an integer.
        epoch: The epoch, an integer; or the view, see `view_number`.
        index: The example's index in the data before it is shuffled, an integer.

    Returns:
        Int32 `[2]`, for `tf.random.stateless_uniform`. Seeds of neighboring epochs and
        examples are unrelated.
    """
    return _hashed(_EXAMPLES, seed, epoch, index)


def batch_seed(
    seed: int | tf.Tensor,
    epoch: int | tf.Tensor,
    number: int | tf.Tensor,
    *,
    worker: int | tf.Tensor = 0,
) -> tf.Tensor:
    """Computes the seed with which the examples of one batch are blended.

    Args:
        seed: The run's seed, an integer.
        epoch: The epoch, an integer.
        number: The batch's index in the epoch, an integer; skipped batches count, too.
        worker: The index of the process, if several share a batch. Each blends its own
            examples, so the result depends on the number of processes.

    Returns:
        Int32 `[2]`, which no call of `example_seed` returns.
    """
    return _hashed(_BATCHES, seed, epoch, number, worker)


def view_number(epoch: int, views: int) -> int:
    """Returns the number of the view of the examples that an epoch uses.

    A cache of activations with a few augmented views of every example passes this
    number to `example_seed` instead of the epoch.

    Args:
        epoch: The epoch, from 0.
        views: The number of views, at least 1.

    Returns:
        An integer from 0 to `views - 1`: the remainder of `epoch / views`.

    Raises:
        DataError: `views` is less than 1.
    """
    if isinstance(views, bool) or not isinstance(views, numbers.Integral) or views < 1:
        raise DataError(f"views must be an integer of 1 or more; got {views!r}.")
    return epoch % views


def part_seed(seed: tf.Tensor, part: int) -> tf.Tensor:
    """Derives the seed of one operation on an example from the example's seed.

    `part` is the operation's number, so other operations do not change its seed.
    """
    return tf.random.experimental.stateless_fold_in(seed, part)


def uniform(
    seed: tf.Tensor, shape=(), *, low: float = 0.0, high: float = 1.0
) -> tf.Tensor:
    """Draws float32 numbers in [`low`, `high`)."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def integers(seed: tf.Tensor, shape=(), *, below: int | tf.Tensor) -> tf.Tensor:
    """Draws int32 numbers in [0, `below`)."""
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
