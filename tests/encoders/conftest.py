"""Fixtures: every form of SavedModel, opened once; `tests/conftest.py` writes them."""

import pytest

import tlkit
from tests.encoders.compare import variables_of
from tlkit.encoders.saved_model.saved_model_reader import read_saved_model


@pytest.fixture(scope="session")
def _opened(written):
    encoders = {}

    def load(name):
        if name not in encoders:
            encoders[name] = tlkit.load_encoder(written(name))
        return encoders[name]

    return load


@pytest.fixture
def opened(_opened):
    """Returns the encoder of a form; changes of its weights are undone."""
    used = {}

    def load(name):
        encoder = _opened(name)
        used[name] = encoder, [v.numpy() for v in variables_of(encoder)]
        return encoder

    yield load
    for encoder, values in used.values():
        for variable, value in zip(variables_of(encoder), values, strict=True):
            variable.assign(value)
        tlkit.freeze(encoder, train="all", batch_norm="frozen")


@pytest.fixture(scope="session")
def restored(written):
    """Returns a form as TensorFlow restores it, to compare encoders with."""
    modules = {}

    def load(name):
        if name not in modules:
            modules[name] = read_saved_model(written(name))
        return modules[name]

    return load
