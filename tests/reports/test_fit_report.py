import json
import math
import os
import platform

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.data import Skipped
from tlkit.errors import DataError
from tlkit.reports import PhaseReport, Report, evaluate_predictions


def make_report(**options):
    evaluation = evaluate_predictions(
        np.eye(2)[[0, 1, 1, 1]], [0, 1, 0, 1], label_names=("no", "yes"), loss=0.5
    )
    fields = {
        "history": {
            "loss": [1.0, 0.5, 0.25],
            "accuracy": [0.5, 0.75, 1.0],
            "val_loss": [1.5, 0.75, 0.5],
        },
        "phases": (
            PhaseReport("head", 2, 0, 1.5, (), 3_080, 1e-3),
            PhaseReport("all", 1, 2, 60.0, ("layer_1", "layer_2"), 22_000_000, 2e-5),
        ),
        "seconds": 61.75,
        "evaluations": {"test": evaluation},
        "skipped": (
            Skipped("a/bad.jpg", "Input is empty."),
            Skipped("x.csv", "…", 7),
        ),
        "model": "minilm, 6 blocks",
        "plan": "head  all",
        "seed": 3,
    }
    return Report(**{**fields, **options})


def test_json_there_and_back(tmp_path):
    report = make_report()
    path = report.save(tmp_path / "runs" / "first")
    assert path == tmp_path / "runs" / "first" / "report.json"
    assert os.listdir(path.parent) == ["report.json"]
    assert Report.load(path) == Report.load(path.parent) == report
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["history"]["val_loss"] == [1.5, 0.75, 0.5]
    assert found["evaluations"]["test"]["accuracy"] == 0.75
    assert found["phases"][1]["blocks"] == ["layer_1", "layer_2"]
    assert found["skipped"][1] == {"path": "x.csv", "reason": "…", "row": 7}
    assert found["seed"] == 3


def test_numbers_that_json_does_not_know(tmp_path):
    history = {"loss": [math.nan, math.inf, np.float32(0.5), tf.constant(2.0)]}
    path = make_report(history=history).save(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["history"]["loss"] == [None, None, 0.5, 2.0]
    assert "NaN" not in text
    assert "Infinity" not in text
    loaded = Report.load(path).history["loss"]
    assert [math.isnan(value) for value in loaded] == [True, True, False, False]


def test_a_report_of_nothing(tmp_path):
    report = Report({})
    assert Report.load(report.save(tmp_path)) == report
    assert str(report) == "0.0 s in all"


def test_versions():
    versions = make_report().versions
    assert versions["python"] == platform.python_version()
    assert versions["keras"] == keras.__version__
    assert versions["tensorflow"] == tf.__version__
    assert versions["tlkit"]


def test_saving_again_replaces(tmp_path):
    make_report(seed=1).save(tmp_path)
    make_report(seed=2).save(tmp_path)
    assert Report.load(tmp_path).seed == 2


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    make_report(seed=1).save(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match=r"cannot be written to .*No space left"):
        make_report(seed=2).save(tmp_path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["report.json"]
    assert Report.load(tmp_path).seed == 1


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        make_report().save(tmp_path / "run")


def test_nothing_to_load(tmp_path):
    with pytest.raises(DataError, match=r"no report at .*report\.json.*directory="):
        Report.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"history": 3}', '{"new": 1}'])
def test_something_else_to_load(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json is not a report"):
        Report.load(tmp_path)


_TEXT = """\
minilm, 6 blocks
phase  blocks               epochs  parameters  learning rate  seconds
head   none, only the head       2       3,080          0.001      1.5
all    layer_1, layer_2          1  22,000,000          2e-05     60.0
after 3 epochs: loss 0.2500, accuracy 1.0000, val_loss 0.5000
test: accuracy 0.7500, macro F1 0.7333 (precision 0.8333, recall 0.7500), \
loss 0.5000, 4 examples
skipped 2 examples, see report.skipped
61.8 s in all"""


def test_what_is_printed():
    assert str(make_report()) == _TEXT
