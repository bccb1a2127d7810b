"""Feeds of batches that Python makes: generators, `PyDataset`, data loaders.

Keras's own adapters are private and cannot leave batches out to resume a run, so these
read the public interfaces: the iterator's, and that of `keras.utils.PyDataset`.

Tested in tests/training/feeds/test_python_batches.py.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...data.examples import mixed_seed
from ...errors import DataError
from .data_errors import remembering_errors
from .dataset_feed import DatasetFeed
from .feed import Options, check_enough
from .input_arrays import as_tuples

_PEEKED = 2  # batches whose shapes are compared to find the sizes that vary


def makes_batches(x: Any) -> bool:
    """Returns whether an input of `fit` is a Python object that makes batches."""
    if isinstance(x, keras.utils.PyDataset) or hasattr(x, "__next__"):
        return True
    arrays = (list, tuple, dict, str, bytes, tf.data.Dataset)
    # A `DataLoader` of torch, for example, is recognized without importing torch.
    return hasattr(x, "__iter__") and not (isinstance(x, arrays) or hasattr(x, "shape"))


def python_feed(x: Any, options: Options, *, steps: int | None = None) -> DatasetFeed:
    """Returns a feed of the batches that a Python object makes.

    Args:
        x: A generator or another iterator; a `PyDataset`; or an iterable such as a
            `DataLoader` of torch. Its elements are `(inputs, labels)` or `(inputs,
            labels, weights)`, with lists, tuples and dicts of arrays.
        options: How texts are tokenized, and the seed.
        steps: The number of batches to read, for validation data: every epoch uses the
            same ones. Default: all.

    Raises:
        DataError: An element has another form, or there are too few.
    """
    if isinstance(x, keras.utils.PyDataset):
        return PyDatasetFeed(x, options, steps=steps)
    if steps is not None:
        # Held, so that every epoch is evaluated on the same batches.
        held = [_standard(batch) for batch in itertools.islice(x, steps)]
        check_enough(steps, len(held))
        dataset = _dataset(lambda: held, held[:_PEEKED])
        return DatasetFeed(dataset.apply(_counted(steps)), options)
    if hasattr(x, "__next__"):
        return GeneratorFeed(x, options)
    peeked = [_standard(batch) for batch in itertools.islice(x, _PEEKED)]
    dataset = _dataset(lambda: _iterate(x), peeked)
    try:
        dataset = dataset.apply(_counted(len(x)))
    except TypeError:  # a loader of unknown length
        pass
    return DatasetFeed(dataset, options)


class GeneratorFeed(DatasetFeed):
    """The batches of a generator, which can be read once: each epoch continues it.

    Args:
        generator: Yields batches.
        options: How texts are tokenized.

    Raises:
        DataError: It yields nothing, or elements of another form.
    """

    def __init__(self, generator: Iterator, options: Options):
        peeked = [_standard(batch) for batch in itertools.islice(generator, _PEEKED)]
        stream = itertools.chain(peeked, _iterate(generator))
        super().__init__(_dataset(lambda: stream, peeked), options)
        self.steps, self.continues = math.inf, True
        self._first = DatasetFeed(_dataset(lambda: peeked, peeked), options)

    def batches(self, epoch, *, skip=0, part=None):
        # Without an epoch, only the first batches: others cannot be read again.
        feed = super() if epoch is not None else self._first
        return feed.batches(epoch, skip=skip, part=part)


class PyDatasetFeed(DatasetFeed):
    """The batches of a `keras.utils.PyDataset`, which are shuffled as in Keras.

    As many threads as the `PyDataset` has `workers` read the batches.

    Args:
        batches: The `PyDataset`.
        options: How texts are tokenized; the seed; and whether to shuffle.
        steps: The number of batches to read. Default: all.

    Raises:
        DataError: It is empty, or its elements have another form.
    """

    def __init__(self, batches: keras.utils.PyDataset, options: Options, *, steps=None):
        self.data, self._begun = batches, False
        count = batches.num_batches
        if steps is not None and count is not None:
            check_enough(steps, count)
        self.count = steps or count
        self._shuffles = options.shuffle and self.count is not None
        some = range(_PEEKED if self.count is None else min(_PEEKED, self.count))
        peeked = [_standard(batches[index]) for index in some]
        self._read = _reader(lambda index: _standard(batches[index]), _specs(peeked))
        super().__init__(self._in_order(), options)
        if self.count is None:
            self.steps, self.continues = math.inf, True
        if batches.use_multiprocessing:
            self.notes = (
                "The PyDataset has use_multiprocessing=True, but threads read its "
                "batches, not processes.",
            )

    def batches(self, epoch, *, skip=0, part=None):
        dataset = self.tokenized(self._in_order(epoch, skip))
        return self.rows_of_worker(dataset, part)

    def begin_epoch(self):
        if not self._begun:
            self.data.on_epoch_end()  # as Keras's `fit` does before the first epoch
        self._begun = True
        self.data.on_epoch_begin()

    def end_epoch(self):
        self.data.on_epoch_end()

    def _in_order(self, epoch: int | None = None, skip: int = 0) -> tf.data.Dataset:
        if self.count is None:
            indices = tf.data.Dataset.range(skip, np.iinfo(np.int64).max)
        else:
            order = np.arange(self.count)
            if self._shuffles and epoch is not None:
                seed = mixed_seed(self.options.seed, epoch)
                order = np.random.default_rng(seed).permutation(order)
            with tf.device("CPU"):
                indices = tf.data.Dataset.from_tensor_slices(order[skip:])
        threads = max(1, self.data.workers)
        read = indices.map(self._read, num_parallel_calls=threads, deterministic=True)
        return read.prefetch(max(1, self.data.max_queue_size) if threads > 1 else 1)


def _iterate(batches: Iterable) -> Iterator[tuple]:
    """Yields the batches of an iterable, whose errors `fit` raises as they are."""
    iterator = iter(batches)
    following = remembering_errors(lambda: _standard(next(iterator)))
    while True:
        try:
            yield following()
        except StopIteration:
            return


def _standard(batch: Any) -> tuple:
    """Returns a batch as a tuple of nests of NumPy arrays, as Keras's `fit` reads it.

    Raises:
        DataError: It is no batch.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        what = f"{type(batch).__name__}"
        what += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise DataError(
            "Each batch must be (inputs, labels) or (inputs, labels, weights), with "
            f"the labels that the model learns. Received: a {what}."
        )
    parts = [as_tuples(part) for part in batch if part is not None]
    parts = tuple(_map(_batch_array, part) for part in parts)
    sizes = {len(array) for array in tf.nest.flatten(parts)}
    if len(sizes) != 1:
        raise DataError(
            "The inputs, labels and weights of a batch must have one entry for each "
            f"example. Their lengths: {', '.join(map(str, sorted(sizes)))}."
        )
    return parts


def _map(function: Callable, nest: Any) -> Any:
    """Applies a function to the leaves of a nest; lists of numbers are leaves."""
    if isinstance(nest, dict):
        return {key: _map(function, part) for key, part in nest.items()}
    if isinstance(nest, tuple):
        return tuple(_map(function, part) for part in nest)
    return function(nest)


def _batch_array(value: Any) -> np.ndarray:
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) or hasattr(value, "tocoo"):
        raise DataError(f"Batches must be dense arrays; got a {type(value).__name__}.")
    array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    if array.ndim == 0:
        raise DataError(f"Batches must have an axis of examples; got {value!r:.80}.")
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _specs(batches: list[tuple]) -> tuple:
    """Returns the specs of batches; a size that differs between them is `None`."""
    if not batches:
        raise DataError("The data has no batch.")

    def spec(*arrays):
        ranks, dtypes = {a.ndim for a in arrays}, {a.dtype for a in arrays}
        if len(ranks) > 1 or len(dtypes) > 1:
            raise DataError(
                "The batches must be of one dtype and rank. Received: "
                f"{', '.join(f'{a.dtype} {list(a.shape)}' for a in arrays)}."
            )
        sizes = zip(*(array.shape[1:] for array in arrays), strict=True)
        sizes = [each[0] if len(set(each)) == 1 else None for each in sizes]
        dtype = tf.string if arrays[0].dtype.kind in "OSU" else arrays[0].dtype
        return tf.TensorSpec([None, *sizes], dtype)

    return tf.nest.map_structure(spec, *batches)


def _dataset(read: Callable[[], Iterable], peeked: list[tuple]) -> tf.data.Dataset:
    specs = _specs(peeked)
    dataset = tf.data.Dataset.from_generator(read, output_signature=specs)
    return dataset.prefetch(1)


def _reader(read: Callable[[int], tuple], specs: tuple) -> Callable:
    """Returns a function of an index tensor that reads a batch in a graph."""
    flat = tf.nest.flatten(specs)

    def arrays(index):
        values = tf.nest.flatten(read(int(index)))
        if len(values) != len(flat):
            raise DataError(
                f"Batch {index} has {len(values)} arrays, the first one {len(flat)}."
            )
        pairs = zip(values, flat, strict=True)
        return [v.astype(s.dtype.as_numpy_dtype, copy=False) for v, s in pairs]

    def tensors(index):
        read = remembering_errors(arrays)
        values = tf.numpy_function(read, [index], [spec.dtype for spec in flat])
        values = [
            tf.ensure_shape(v, s.shape) for v, s in zip(values, flat, strict=True)
        ]
        return tf.nest.pack_sequence_as(specs, values)

    return tf.autograph.experimental.do_not_convert(tensors)


def _counted(steps: int) -> Callable:
    return tf.data.experimental.assert_cardinality(steps)
