"""These tests are about Python code; see `without_grappler`."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def plain_graphs(without_grappler):
    """Makes all tests of this package use it."""
