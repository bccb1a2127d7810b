from __future__ import annotations

import collections

import numpy as np
import pytest

from tlkit import samples
from tlkit.errors import SourceError

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("reuters-r8", 5485, 2189, 8),
        ("reuters-r52", 6532, 2568, 52),
        ("20newsgroups", 11293, 7528, 20),
    ],
)
def test_texts_come_in_their_standard_split(name, train, test, classes):
    data = samples.data(name)
    assert len(data.train_texts) == len(data.train_labels) == train
    assert len(data.test_texts) == len(data.test_labels) == test
    assert len(set(data.train_labels)) == classes
    assert set(data.test_labels) == set(data.train_labels)
    for text in (*data.train_texts, *data.test_texts):
        assert isinstance(text, str)
        assert text.strip()
        assert "\t" not in text


def test_reuters_r8_is_itself():
    data = samples.data("reuters-r8")
    assert data.train_texts[0].startswith("champion products ch approves stock split")
    assert data.train_labels[0] == "earn"
    assert collections.Counter(data.test_labels).most_common(2) == [
        ("earn", 1083),
        ("acq", 696),
    ]


def test_mnist():
    data = samples.data("mnist-5k")
    assert (data.images.shape, data.images.dtype) == ((5000, 28, 28), np.uint8)
    assert data.labels.dtype == np.int32
    assert np.bincount(data.labels).tolist() == [500] * 10
    assert int(data.images.sum(dtype=np.int64)) == 131267102
    # A one is thin and a zero is hollow.
    means = [data.images[data.labels == digit].mean(axis=0) for digit in range(2)]
    assert means[1][14, 14] > 150 > 30 > means[0][14, 14]


def test_an_unknown_data_set_names_those_that_are():
    with pytest.raises(SourceError, match="There are: reuters-r8, reuters-r52, 20news"):
        samples.data("mnist")
