"""The command line, run as people run it: in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import write_image_encoder, write_text_encoder


def tlkit(*arguments, cwd, status=0):
    done = subprocess.run(
        [sys.executable, "-m", "tlkit.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


def last_json(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained text classifier in `runs/films`, beside its data."""
    folder = tmp_path_factory.mktemp("cli")
    source = write_text_encoder(folder / "encoder" / "1")
    rows = [
        "body,topic",
        "good film,good",
        "the good,good",
        "bad film,bad",
        "bad !,bad",
    ]
    (folder / "films.csv").write_text("\n".join([rows[0], *rows[1:] * 10]))
    columns = ("--text", "body", "--label", "topic")
    done = tlkit(
        *("fit", source, "films.csv", *columns, "--directory", "runs/films", "--json"),
        *("--schedule", "head_only", "--batch-size", "8"),
        cwd=folder,
    )
    return folder, columns, done


def test_fit_trains_saves_and_reports(run):
    folder, _, done = run
    figures = last_json(done)
    assert figures["history"]["loss"][-1] < figures["history"]["loss"][0]
    assert (folder / "runs/films/model.keras").is_file()
    saved = json.loads((folder / "runs/films/report.json").read_text())
    assert saved["history"] == figures["history"]
    assert not (folder / "runs/films/.writing.keras").exists()


def test_evaluate_predict_and_export_use_the_run(run):
    folder, columns, _ = run
    evaluated = tlkit(
        "evaluate", "runs/films", "films.csv", *columns, "--json", cwd=folder
    )
    assert last_json(evaluated)["examples"] == 4
    texts = ["good film", "bad !"]
    predicted = last_json(tlkit("predict", "runs/films", *texts, "--json", cwd=folder))[
        "predictions"
    ]
    exported = last_json(
        tlkit("export", "runs/films", "served/films", "--json", cwd=folder)
    )["export"]
    import tensorflow_text  # noqa: F401  registers the tokenizer's ops

    served = tf.saved_model.load(str(folder / exported))
    answer = served.signatures["serving_default"](text=tf.constant(texts))
    labels = [label.decode() for label in answer["label"].numpy()]
    assert labels == [p["label"] for p in predicted]
    np.testing.assert_allclose(
        answer["score"], [p["score"] for p in predicted], atol=1e-5
    )


def test_inspect_says_what_an_encoder_is(tmp_path):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    done = tlkit("inspect", source, "--json", cwd=tmp_path)
    figures = last_json(done)
    assert [block["name"] for block in figures["blocks"]] == ["stage1", "stage2"]
    assert figures["opened"] is True
    assert "stage2" in done.stdout.splitlines()[-2]


def test_an_error_is_one_line_and_no_traceback(tmp_path):
    done = tlkit("predict", "runs/none", "text", cwd=tmp_path, status=1)
    assert done.stderr.strip().splitlines()[-1].startswith("tlkit predict: There is no")
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("kind, least", [("text", 0.970), ("image", 0.97)])
def test_the_demos_reach_their_accuracy(kind, least, tmp_path):
    done = tlkit("demo", kind, "--json", cwd=tmp_path)
    figures = last_json(done)
    print(figures)
    assert figures["accuracy"] >= least
    assert 0.5 < figures["macro_f1"] <= 1
    assert figures["seconds"] > 0 and figures["peak_memory_mb"] > 0
    assert (tmp_path / figures["export"] / "saved_model.pb").is_file()
    assert figures["served_label"]
