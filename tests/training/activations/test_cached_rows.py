"""Rows of activations are read as they were written."""

import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.training.activations.cache_files import FileStorage
from tlkit.training.activations.cached_rows import (
    Column,
    MemoryStorage,
    StoredRows,
    row_offsets,
)
from tlkit.training.feeds.array_rows import Lengths


def storage_of(where, offsets, folder):
    if where == "memory":
        return MemoryStorage(offsets)
    return FileStorage(folder, offsets, writes=True)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_rows_of_one_size(where, tmp_path):
    columns = [
        Column("float32", (2, 3), read_as="float32"),
        Column("int32", (), read_as="int32"),
        Column("float16", (5,), read_as="float32"),
    ]
    offsets = row_offsets(columns, 7, None)
    assert offsets.tolist() == [38 * i for i in range(8)]
    structure = {"cut": 0, "inputs": {"0": 0, "1": 0}}
    rows = StoredRows(storage_of(where, offsets, tmp_path), structure, columns, count=7)
    random = np.random.default_rng(0)
    values = [
        [random.normal(size=(2, 3)), np.int32(i), random.normal(size=5)]
        for i in range(7)
    ]
    for i in (3, 1, 0, 6, 5, 4, 2):
        rows.write(i, values[i])
    found = rows.gather(tf.constant([5, 0, 5], tf.int64))
    assert found["cut"].shape == (3, 2, 3) and found["inputs"]["1"].dtype == tf.float32
    np.testing.assert_allclose(found["cut"][1], values[0][0], rtol=1e-6)
    assert found["inputs"]["0"].numpy().tolist() == [5, 0, 5]
    np.testing.assert_allclose(found["inputs"]["1"][2], values[5][2], rtol=1e-3)
    assert [len(part) for part in rows.read(np.zeros(0, np.int64))] == [0, 0, 0]


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_rows_of_their_own_lengths_are_padded(where, tmp_path):
    columns = [
        Column("float32", (2,), True, 0, "float32"),
        Column("int32", (), True, 9, "int32"),
        Column("float32", (1,), read_as="float32"),
    ]
    padded = lambda longest: -(-longest // 4) * 4
    lengths = Lengths(np.array([1, 3, 5]), padded, (9,))
    offsets = row_offsets(columns, 3, lengths)
    assert offsets.tolist() == [0, 16, 56, 120]
    rows = StoredRows(
        storage_of(where, offsets, tmp_path), (0, 0, 0), columns, count=3,
        lengths=lengths, checksums=np.zeros(3, np.uint32), where="here",
    )  # fmt: skip
    for i, n in enumerate((1, 3, 5)):
        rows.write(i, [np.full((n, 2), i + 0.5), np.full(n, i), np.array([-i])])
        assert rows.is_whole(i)
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
    assert not rows.is_whole(1)
    with pytest.raises(TrainingError, match="example 1 in here is damaged"):
        rows.read(np.array([0, 1]))
