"""What holds for each test."""

import contextlib
import gc
import os
import random
import warnings

# Before the import of TensorFlow, and for the processes of tests, too: tests compute
# little, and threads that wait for work would spin. Two threads run ops: with one, an
# op that calls Python would wait for ever for the graph that Python calls.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tests.encoders.forms import FORMS
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


@pytest.fixture(scope="module")
def without_grappler():
    """Runs graphs as they were traced, for packages of tests that are not about graphs.

    Optimizing the graph of a step takes a fifth of the time of a short training.
    """
    set_options = tf.config.optimizer.set_experimental_options
    set_options({"disable_meta_optimizer": True})
    yield
    set_options({"disable_meta_optimizer": False})


@pytest.fixture(autouse=True)
def seeded(seeded_module):
    """Makes the draws the same in each run, so that a test that fails fails again."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Returns the folder of a form of SavedModel by its name; tests only read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by the workers
    own = tmp_path_factory.mktemp("forms")

    def folder(name):
        shared = root / "written_forms" / name
        if not shared.exists():
            # The same weights whichever test comes first.
            keras.utils.set_random_seed(1)
            with warnings.catch_warnings():  # those of the libraries that write
                warnings.simplefilter("ignore")
                FORMS[name].write(own / name)
            shared.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # the other worker was faster
                os.rename(own / name, shared)
        return shared

    return folder


@pytest.fixture(autouse=True)
def forked_parity_checks(request, monkeypatch):
    """Lets exports be checked in forked processes, but for the long tests."""
    if request.node.get_closest_marker("long") is None:
        monkeypatch.setattr(parity_check, "subprocess", forked)
