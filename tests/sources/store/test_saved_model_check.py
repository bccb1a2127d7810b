from __future__ import annotations

import pathlib
import shutil

import pytest
import tensorflow as tf

from tlkit.errors import SourceError
from tlkit.sources import resolve
from tlkit.sources.store.saved_model_check import check_saved_model

DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture
def model(tiny_model, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_whole_model_passes(model):
    check_saved_model(model, full=True)


def test_a_model_without_variables_passes(tmp_path):
    root = tf.Module()
    root.__call__ = tf.function(
        lambda inputs: inputs + 1.0, input_signature=[tf.TensorSpec([None])]
    )
    tf.saved_model.save(root, str(tmp_path))
    shutil.rmtree(tmp_path / "variables")
    check_saved_model(tmp_path, full=True)


def test_a_folder_without_a_model_says_what_is_there(tmp_path):
    with pytest.raises(SourceError, match="only: .nothing.. A source is a folder with"):
        resolve(tmp_path)
    (tmp_path / "weights.h5").write_bytes(b"")
    (tmp_path / "notes").mkdir()
    with pytest.raises(SourceError, match="only: notes, weights.h5. A source is"):
        resolve(tmp_path)


def test_a_tf1_hub_module(tmp_path):
    (tmp_path / "tfhub_module.pb").write_bytes(b"\x08\x03")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SourceError, match="TF1 Hub module .*framework tensorFlow2"):
        resolve(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_saved_model(model, share):
    path = model / "saved_model.pb"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SourceError, match="is truncated or is not a SavedModel"):
        resolve(model)


def test_a_saved_model_as_text(model):
    path = model / "saved_model.pb"
    path.rename(model / "saved_model.pbtxt")
    with pytest.raises(SourceError, match="is truncated or is not a SavedModel"):
        resolve(model)


@pytest.mark.parametrize("name", ["variables/variables.index", DATA])
def test_missing_variables(model, name):
    (model / name).unlink()
    with pytest.raises(SourceError, match="missing"):
        resolve(model)


@pytest.mark.parametrize("name", ["variables/variables.index", DATA])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_variables(model, name, share):
    path = model / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SourceError, match="variables .* are damaged"):
        check_saved_model(model, full=True)


def test_a_flipped_bit_in_the_variables(model):
    content = bytearray((model / DATA).read_bytes())
    content[len(content) // 2] ^= 1
    (model / DATA).write_bytes(bytes(content))
    with pytest.raises(SourceError, match="variables .* are damaged"):
        check_saved_model(model, full=True)


def test_a_missing_asset(model):
    (model / "assets" / "words.txt").unlink()
    with pytest.raises(SourceError, match="lacks its file assets/words.txt"):
        resolve(model)
