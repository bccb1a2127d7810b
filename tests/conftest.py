"""What holds for each test."""

import keras
import pytest


@pytest.fixture(autouse=True)
def seeded():
    """The same draws in each run, so that a test that fails once fails again."""
    keras.utils.set_random_seed(0)
