"""Computes the order of an epoch's examples, for data with random access."""

import dataclasses

import numpy as np
import tensorflow as tf

from .splits import check_seed
from .tf_data import shuffled, untuned

# How many batches are sorted by length together. More would save more padding, but
# leave less of the random order.
WINDOW = 32


@dataclasses.dataclass(frozen=True)
class Order:
    """The indices of the examples of an epoch, batch by batch.

    Attributes:
        rows: int64 `[batches, batch_size]`, indices of the examples in the data; -1
            where a batch is not full.
        present: float32 of the same shape: 1 for examples of the data, 0 for padding
            examples and where `rows` is -1.
    """

    rows: np.ndarray
    present: np.ndarray


def order(
    count: int,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    buffer: int | None = None,
    lengths: np.ndarray | None = None,
    workers: int = 1,
    worker: int = 0,
    fill: int = 1,
) -> Order:
    """Computes which examples each batch of an epoch has.

    The result depends on the arguments alone. So all workers, a repeated run, and a run
    on cached activations have the same batches.

    Args:
        count: How many examples there are, at least 1.
        batch_size: Examples in a batch over all workers, a multiple of `workers`.
        shuffle: Whether to shuffle.
        seed: Not negative.
        epoch: Not negative. Every epoch has its own order.
        buffer: The size of the shuffle buffer, as in `tf.data`. Default: all examples.
        lengths: `[count]` lengths. Shuffled examples of similar lengths then come into
            one batch: they are sorted in windows of 32 batches, and the batches are
            shuffled.
        workers: How many processes read a part of each batch.
        worker: The index of this process, from 0.
        fill: Pads to a multiple of this number, by repeating the first examples.

    Returns:
        The order of this worker's examples.
    """
    indices = np.arange(count, dtype=np.int64)
    if shuffle:
        indices = _shuffled(count, buffer or count, mixed_seed(seed, epoch))
    by_length = shuffle and lengths is not None
    if by_length:
        indices = _sorted_in_windows(indices, np.asarray(lengths), batch_size * WINDOW)
    padding = np.resize(np.arange(count), -count % fill)
    padded = np.concatenate([indices, padding])
    present = np.arange(len(padded)) < count
    rows = _in_batches(padded, batch_size, -1)
    present = _in_batches(present.astype(np.float32), batch_size, 0.0)
    if by_length:
        mixed = np.random.default_rng(mixed_seed(seed, epoch)).permutation(len(rows))
        rows, present = rows[mixed], present[mixed]
    return Order(rows[:, worker::workers], present[:, worker::workers])


def mixed_seed(seed: int, epoch: int) -> int:
    """Hashes a seed and an epoch into one seed, unrelated to that of the next epoch."""
    words = np.random.SeedSequence([check_seed(seed), check_seed(epoch)])
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _shuffled(count: int, buffer: int, seed: int) -> np.ndarray:
    # TensorFlow shuffles the indices, so the order equals that of a shuffled stream.
    with tf.device("CPU"):
        numbers = shuffled(tf.data.Dataset.range(count), min(buffer, count), seed)
        chunks = list(untuned(numbers.batch(4096)).as_numpy_iterator())
    return np.concatenate(chunks)


def _sorted_in_windows(
    indices: np.ndarray, lengths: np.ndarray, window: int
) -> np.ndarray:
    windows = np.arange(len(indices)) // window
    return indices[np.lexsort([lengths[indices], windows])]


def _in_batches(values: np.ndarray, size: int, missing) -> np.ndarray:
    padded = np.full(-(-len(values) // size) * size, missing, values.dtype)
    padded[: len(values)] = values
    return padded.reshape(-1, size)
