from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
import tensorflow as tf

from tests.sources import hub_server

# Every file of the tiny SavedModel, in the order in which TF Hub packs them.
FILES = [
    "saved_model.pb",
    "assets",
    "assets/words.txt",
    "variables",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "fingerprint.pb",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A SavedModel that multiplies by 3, with a variable and an asset."""
    folder = tmp_path_factory.mktemp("tiny")
    words = folder / "words.txt"
    words.write_text("one\ntwo\n", encoding="utf-8")
    root = tf.Module()
    root.factor = tf.Variable([3.0] * 500, name="factor")
    root.words = tf.saved_model.Asset(str(words))
    root.__call__ = tf.function(
        lambda inputs: inputs * root.factor,
        input_signature=[tf.TensorSpec([None, 500], tf.float32)],
    )
    tf.saved_model.save(root, str(folder / "model"))
    return folder / "model"


@pytest.fixture
def tiny_archive(tiny_model: pathlib.Path) -> bytes:
    return hub_server.archive(tiny_model, FILES)


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    return folder


@pytest.fixture
def server() -> Iterator[hub_server.HubServer]:
    with hub_server.running() as running:
        yield running
