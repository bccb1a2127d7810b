"""Checksums of weights."""

import zlib

import keras
import numpy as np
import pytest

from tlkit.training.loop.frozen_check import checksums


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 5)])
def test_a_checksum_is_that_of_the_bytes(dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2
    one, same = (keras.Variable(values, dtype=dtype, trainable=False) for _ in "ab")
    right = zlib.crc32(np.asarray(one.numpy()).tobytes())
    assert checksums([one, same]) == (right, right)
    if values.size:
        same.assign(1 - values)
        assert checksums([same]) != (right,)
