"""In which order examples come, batch by batch, for data with random access."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from .splits import check_seed
from .tf_data import shuffled, untuned

# How many batches are sorted by length together. More would leave less padding, but
# batches of an epoch's beginning and of its end are then no longer drawn alike.
WINDOW = 32


@dataclasses.dataclass(frozen=True)
class Order:
    """The examples of an epoch, batch by batch.

    Attributes:
        rows: int64 `[batches, batch_size]`, the places of the examples in the data; -1
            where a batch is not full.
        present: Float32, likewise: 0 for examples that only fill up.
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
    """Decides which examples come together, and when.

    It depends on nothing but the arguments, so every worker, a second run and features
    instead of pictures meet the same batches.

    Args:
        count: How many examples there are, at least 1.
        batch_size: Examples in a batch over all workers, a multiple of them.
        shuffle: Whether to shuffle.
        seed: Not negative.
        epoch: Not negative. Every epoch has an order of its own.
        buffer: Shuffle as `tf.data` does with a buffer of that size. Default: all.
        lengths: `[count]` lengths. Shuffled examples of similar lengths then come into
            a batch together: they are sorted in windows of 32 batches, and the batches
            shuffled.
        workers: How many processes share each batch.
        worker: Which of them this is, from 0.
        fill: The examples are filled up to a multiple of that with the first ones.

    Returns:
        The order, of this worker's share.
    """
    places = np.arange(count, dtype=np.int64)
    if shuffle:
        places = _shuffled(count, buffer or count, mixed_seed(seed, epoch))
    by_length = shuffle and lengths is not None
    if by_length:
        places = _sorted_in_windows(places, np.asarray(lengths), batch_size * WINDOW)
    added = -count % fill
    filled = np.concatenate([places, np.resize(np.arange(count), added)])
    present = np.arange(len(filled)) < count
    rows = _in_batches(filled, batch_size, -1)
    present = _in_batches(present.astype(np.float32), batch_size, 0.0)
    if by_length:
        mixed = np.random.default_rng(mixed_seed(seed, epoch)).permutation(len(rows))
        rows, present = rows[mixed], present[mixed]
    return Order(rows[:, worker::workers], present[:, worker::workers])


def mixed_seed(seed: int, epoch: int) -> int:
    """One seed of the two, so that neighbors in either have nothing in common."""
    words = np.random.SeedSequence([check_seed(seed), check_seed(epoch)])
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))


def _shuffled(count: int, buffer: int, seed: int) -> np.ndarray:
    # TensorFlow's own, since pictures are shuffled by it while they stream.
    with tf.device("CPU"):
        numbers = shuffled(tf.data.Dataset.range(count), min(buffer, count), seed)
        chunks = list(untuned(numbers.batch(4096)).as_numpy_iterator())
    return np.concatenate(chunks)


def _sorted_in_windows(
    places: np.ndarray, lengths: np.ndarray, window: int
) -> np.ndarray:
    windows = np.arange(len(places)) // window
    return places[np.lexsort([lengths[places], windows])]


def _in_batches(values: np.ndarray, size: int, missing) -> np.ndarray:
    padded = np.full(-(-len(values) // size) * size, missing, values.dtype)
    padded[: len(values)] = values
    return padded.reshape(-1, size)
