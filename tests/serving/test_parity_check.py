"""An export whose predictions differ from its model's is rejected."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_text_encoder
from tlkit.errors import ExportError
from tlkit.serving import exporting
from tlkit.serving.export_examples import take_examples
from tlkit.serving.parity_check import check_parity

TEXTS = ["good film", "the bad films!", "", "film"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    source = write_text_encoder(tmp_path_factory.mktemp("texts") / "1")
    model = tlkit.text_classifier(source, ["good", "bad", "odd"])
    dense = model.get_layer("head").dense
    dense.kernel.assign(np.random.default_rng(2).normal(size=dense.kernel.shape))
    return model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return tlkit.export(model, tmp_path_factory.mktemp("films"), check=False)


def test_equal_predictions_pass(model, path):
    found = check_parity(model, path, take_examples(model, TEXTS))
    assert found.examples == 4
    assert 0 <= found.largest_difference <= 1e-6


def moved(model, by):
    """Changes the bias after the export; returns a function that restores it."""
    bias = model.get_layer("head").dense.bias
    before = bias.numpy()
    bias.assign(before + by)
    return lambda: bias.assign(before)


def test_scores_that_differ_by_more_are_rejected(model, path):
    back = moved(model, [0.0, 1e-3, 0.0])
    try:
        with pytest.raises(ExportError, match="differ from the model"):
            check_parity(model, path, take_examples(model, TEXTS))
        wide = check_parity(model, path, take_examples(model, TEXTS), tolerance=1e-2)
        assert 1e-5 < wide.largest_difference < 1e-3
    finally:
        back()


def test_other_labels_are_rejected_at_any_tolerance(model, path):
    back = moved(model, [-50.0, 50.0, 0.0])
    try:
        with pytest.raises(ExportError, match=r"in \d of 4 examples"):
            check_parity(model, path, take_examples(model, TEXTS), tolerance=2.0)
    finally:
        back()


def test_scores_of_nan_are_rejected(model, path):
    back = moved(model, [np.nan, 0.0, 0.0])
    try:
        with pytest.raises(ExportError):
            check_parity(model, path, take_examples(model, TEXTS), tolerance=2.0)
    finally:
        back()


def test_a_rejected_export_leaves_nothing(model, tmp_path, monkeypatch):
    real = exporting.served_module

    def another(model, top):
        served, functions = real(model, top)
        for weight in served.weights:
            if weight.shape == (8, 3):
                weight.assign(-weight)
        return served, functions

    kernel = model.get_layer("head").dense.kernel
    before = kernel.numpy()

    def save(*args, **kwargs):
        written(*args, **kwargs)
        kernel.assign(before)

    written = tf.saved_model.save
    monkeypatch.setattr(exporting, "served_module", another)
    monkeypatch.setattr(tf.saved_model, "save", save)
    directory = tmp_path / "films"
    with pytest.raises(ExportError, match="Nothing was written"):
        tlkit.export(model, directory, examples=TEXTS, verbose=0)
    assert not directory.exists()


def test_an_export_that_cannot_be_loaded_is_rejected(model, path, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match="cannot be served: a process without tlkit"):
        check_parity(model, tmp_path, take_examples(model, TEXTS))
