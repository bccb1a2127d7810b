"""Cached activations are read as they were written."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.training.activations.cached_rows import CachedRows, Column
from tlkit.training.feeds.array_rows import Lengths


def new_arrays(columns, count, lengths, folder):
    """In memory, or mapped from files if there is a folder."""
    for number, column in enumerate(columns):
        shape = column.stored_shape(count, lengths)
        if folder is None:
            yield np.empty(shape, column.dtype)
        else:
            yield np.memmap(folder / str(number), column.dtype, "w+", shape=shape)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_rows_of_one_size(where, tmp_path):
    columns = [
        Column("float32", (2, 3), read_as="float32"),
        Column("int32", (), read_as="int32"),
        Column("float16", (5,), read_as="float32"),
        Column("bfloat16", (2,), read_as="bfloat16"),
    ]
    structure = {"cut": 0, "inputs": {"0": 0, "1": 0, "2": 0}}
    arrays = list(new_arrays(columns, 7, None, tmp_path if where == "disk" else None))
    checksums = np.zeros(7, np.uint32) if where == "disk" else None
    rows = CachedRows(arrays, columns, structure, 7, checksums=checksums)
    random = np.random.default_rng(0)
    halves = random.normal(size=(7, 2)).astype(ml_dtypes.bfloat16)
    values = [random.normal(size=(7, 2, 3)), np.arange(7), random.normal(size=(7, 5))]
    for batch in ([3, 1, 0], [6, 5, 4, 2]):
        rows.write(np.array(batch), [value[batch] for value in (*values, halves)])
    found = rows.gather(tf.constant([5, 0, 5], tf.int64))
    assert found["cut"].shape == (3, 2, 3) and found["inputs"]["1"].dtype == tf.float32
    np.testing.assert_allclose(found["cut"][1], values[0][0], rtol=1e-6)
    assert found["inputs"]["0"].numpy().tolist() == [5, 0, 5]
    np.testing.assert_allclose(found["inputs"]["1"][2], values[2][5], rtol=1e-3)
    assert found["inputs"]["2"].dtype == tf.bfloat16
    np.testing.assert_array_equal(found["inputs"]["2"], halves[[5, 0, 5]])
    assert [len(part) for part in rows.read(np.zeros(0, np.int64))] == [0, 0, 0, 0]


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_texts_of_different_lengths_are_padded(where, tmp_path):
    columns = [
        Column("float32", (2,), True, 0, "float32"),
        Column("int32", (), True, 9, "int32"),
        Column("float32", (1,), read_as="float32"),
    ]
    padded = lambda longest: -(-longest // 4) * 4
    lengths = Lengths(np.array([1, 3, 5]), padded, (9,))
    folder = tmp_path if where == "disk" else None
    arrays = list(new_arrays(columns, 3, lengths, folder))
    assert [array.shape for array in arrays] == [(9, 2), (9,), (3, 1)]
    checksums = np.zeros(3, np.uint32)
    rows = CachedRows(arrays, columns, (0, 0, 0), 3, lengths, checksums, "here")
    for batch, longest in (([2, 0], 8), ([1], 4)):
        ones = np.ones((len(batch), longest))
        numbers = np.array(batch)[:, np.newaxis] * ones
        wide = np.stack([numbers + 0.5] * 2, axis=-1)
        rows.write(np.array(batch), [wide, numbers, -numbers[:, :1]])
        assert all(map(rows.is_intact, batch))
    wide, ids, alone = rows.gather(tf.constant([1, 0], tf.int64))
    assert wide.shape == (2, 4, 2)
    assert wide[..., 0].numpy().tolist() == [[1.5, 1.5, 1.5, 0], [0.5, 0, 0, 0]]
    assert ids.numpy().tolist() == [[1, 1, 1, 9], [0, 9, 9, 9]]
    assert alone.numpy().tolist() == [[-1], [0]]
    assert rows.gather(tf.constant([2], tf.int64))[1].shape == (1, 8)

    dataset = tf.data.Dataset.from_tensors(np.array([0], np.int64)).map(rows.gather)
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [
        [None, None, 2],
        [None, None],
        [None, 1],
    ]
    rows.checksums[1] += 1
    assert not rows.is_intact(1)
    with pytest.raises(TrainingError, match="example 1 in here are damaged"):
        rows.read(np.array([0, 1]))
