"""What holds for each test."""

import gc
import random

import keras
import numpy as np
import pytest

from tests import forked
from tlkit.serving import parity_check


def pytest_collection_finish():
    """Spares the garbage collector the million objects that imports have created."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_sessionfinish():
    forked.stop()


@pytest.fixture(autouse=True, scope="module")
def seeded_module():
    """Seeds TensorFlow and Keras once for a file.

    Each time, TensorFlow forgets the optimized form of all functions. So models that
    tests share would be optimized again in each test.
    """
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def seeded(seeded_module):
    """Makes the draws the same in each run, so that a test that fails fails again."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def forked_parity_checks(request, monkeypatch):
    """Lets exports be checked in forked processes, but for the long tests."""
    if request.node.get_closest_marker("long") is None:
        monkeypatch.setattr(parity_check, "subprocess", forked)
