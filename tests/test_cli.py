"""The command line; most commands run in this process, to save time."""

import contextlib
import io
import json
import os
import pathlib
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import cli, data
from tlkit.models import packing_of


def tlkit(*arguments, cwd, status=0):
    """Runs a command in a process of its own."""
    done = forked.run(
        [sys.executable, "-m", "tlkit.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


def tlkit_here(*arguments, cwd, status=0):
    """Runs a command in this process, which has TensorFlow imported already."""
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        assert cli.main([str(part) for part in arguments]) == status
    return types.SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture
def few_epochs(monkeypatch):
    """Shortens the schedule `head_only` of commands that run in this process."""
    import tlkit

    monkeypatch.setattr(tlkit, "head_only", lambda: [tlkit.Phase("head", epochs=2)])


def last_json(done):
    return json.loads(done.stdout.splitlines()[-1])


def cached_row(directory):
    """Returns the words of the row `cached` of a run's plan."""
    plan = (directory / "plan.txt").read_text().splitlines()
    (row,) = [line.split() for line in plan if line.startswith("cached")]
    return row


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
    assert not list((folder / "runs/films").glob(".tlkit-staging-*"))


def test_evaluate_predict_and_export_use_the_run(run):
    folder, columns, _ = run
    evaluated = tlkit_here(
        "evaluate", "runs/films", "films.csv", *columns, "--json", cwd=folder
    )
    assert last_json(evaluated)["examples"] == 4
    texts = ["good film", "bad !"]
    predicted = last_json(tlkit("predict", "runs/films", *texts, "--json", cwd=folder))[
        "predictions"
    ]
    exported = last_json(
        tlkit_here("export", "runs/films", "served/films", "--json", cwd=folder)
    )["export"]
    import tensorflow_text  # noqa: F401  registers the tokenizer's ops

    served = tf.saved_model.load(str(folder / exported))
    answer = served.signatures["serving_default"](text=tf.constant(texts))
    labels = [label.decode() for label in answer["label"].numpy()]
    assert labels == [p["label"] for p in predicted]
    np.testing.assert_allclose(
        answer["score"], [p["score"] for p in predicted], atol=1e-5
    )
    # The check used examples of the run's validation split; the report is copied.
    extra = folder / exported / "assets.extra"
    facts = json.loads((extra / "tlkit_export.json").read_text())
    assert facts["parity"]["made"] is False
    assert facts["parity"]["examples"] == 4
    assert (extra / "report.json").read_text() == (
        folder / "runs/films/report.json"
    ).read_text()


def test_fit_takes_pairs_from_two_columns(tmp_path, capsys, few_epochs):
    source = write_text_encoder(tmp_path / "encoder" / "1")
    pairs = ["good,good,same", "bad,bad,same", "good,bad,other", "bad,good,other"]
    table = "\n".join(["premise,hypothesis,topic", *pairs * 10])
    (tmp_path / "pairs.csv").write_text(table)
    columns = ("--text", "premise,hypothesis", "--label", "topic")
    tlkit_here(
        *("fit", source, "pairs.csv", *columns, "--directory", "runs/pairs"),
        *("--schedule", "head_only", "--length", "8", "--truncation", "tail"),
        cwd=tmp_path,
    )
    told = tlkit_here(
        "predict", "runs/pairs", "good", "bad", "bad", "bad", cwd=tmp_path
    )
    shown = [line.split("\t")[2:] for line in told.stdout.splitlines()]
    assert shown == [["good", "bad"], ["bad", "bad"]]
    assert cli.main(["predict", str(tmp_path / "runs/pairs"), "good"]) == 1
    assert "takes pairs of texts; got 1" in capsys.readouterr().err
    model = keras.saving.load_model(tmp_path / "runs/pairs/model.keras")
    packing = packing_of(model)
    assert packing.pairs is True
    assert (packing.length, packing.truncation) == (8, "tail")


def test_fit_reads_long_texts_in_windows_and_caches_nothing(run, few_epochs):
    folder, columns, _ = run
    tlkit_here(
        *("fit", folder / "encoder/1", "films.csv", *columns, "--directory", "runs/w"),
        *("--schedule", "head_only", "--length", "6", "--windows", "2"),
        *("--overlap", "1", "--cache", "off"),
        cwd=folder,
    )
    model = keras.saving.load_model(folder / "runs/w/model.keras")
    packing = packing_of(model)
    assert (packing.length, packing.windows, packing.overlap) == (6, 2, 1)
    assert cached_row(folder / "runs/films") != ["cached", "–"]
    assert cached_row(folder / "runs/w") == ["cached", "–"]


def test_fit_trains_on_shards_and_augments(tmp_path, few_epochs):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    random = np.random.default_rng(0)
    for label, (low, high) in {"dark": (0, 100), "light": (150, 250)}.items():
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            image = random.integers(low, high, (16, 16, 3)).astype(np.uint8)
            path = tmp_path / "images" / label / f"{number}.png"
            tf.io.write_file(str(path), tf.io.encode_png(image))
    splits = data.image_folder(tmp_path / "images", test=4, verbose=0)
    data.write_shards(splits, tmp_path / "shards", verbose=0)
    done = tlkit_here(
        *("fit", source, "shards", "--directory", "runs/p", "--image-size", "16"),
        *("--schedule", "head_only", "--batch-size", "4", "--augment", "--json"),
        cwd=tmp_path,
    )
    assert last_json(done)["history"]["loss"]
    # Augmented images differ in each epoch, so nothing is cached.
    assert cached_row(tmp_path / "runs/p") == ["cached", "–"]
    judged = tlkit_here("evaluate", "runs/p", "shards", "--json", cwd=tmp_path)
    assert last_json(judged)["examples"] == 4


def test_fit_names_what_tensorflow_datasets_has_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    source = write_image_encoder(tmp_path / "encoder" / "1")
    done = tlkit_here(
        "fit", source, "tfds:beans", "--directory", "r", cwd=tmp_path, status=1
    )
    assert "tlkit fit: The data set 'beans' is not prepared" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_describes_an_encoder(tmp_path):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    done = tlkit_here("inspect", source, "--json", cwd=tmp_path)
    figures = last_json(done)
    assert [block["name"] for block in figures["blocks"]] == ["stage1", "stage2"]
    assert figures["opened"] is True
    assert "stage2" in done.stdout.splitlines()[-2]


def test_fetch_copies_a_source_to_a_folder_and_to_a_bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "cache"))
    source = write_text_encoder(tmp_path / "encoder" / "1")
    done = tlkit_here("fetch", source, "models/text", "--json", cwd=tmp_path)
    figures = last_json(done)
    assert figures["path"] == "models/text"
    assert figures["address"] == str(source)
    assert figures["files"]["assets/vocab.txt"]["size"] > 0
    lock = json.loads((tmp_path / "models/text/tlkit.lock").read_text())
    assert lock == {key: figures[key] for key in lock}

    bundled = tlkit_here("fetch", "models/text", "t", "--bundle", cwd=tmp_path)
    assert "t.tar: " in bundled.stdout and "licence unknown" in bundled.stdout
    offline = tlkit_here("fetch", "t.tar", "new", "--offline", "--json", cwd=tmp_path)
    assert last_json(offline) == figures | {"path": "new"}
    shown = tlkit_here("inspect", "t.tar", "--offline", "--json", cwd=tmp_path)
    assert last_json(shown)["details"]["kind"] == "text"

    again = tlkit_here("fetch", "t.tar", "new", cwd=tmp_path, status=1)
    assert "tlkit fetch: new exists, and nothing is overwritten" in again.stderr


def test_offline_uses_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TLKIT_OFFLINE", raising=False)
    for arguments in (
        ("inspect", "bert_en_uncased"),
        ("fetch", "https://tfhub.dev/google/bit/m-r50x1/1", "bit"),
        ("fit", "bert_en_uncased", "sample:mnist-5k", "--directory", "run"),
        ("demo", "text"),
    ):
        done = tlkit_here(*arguments, "--offline", cwd=tmp_path, status=1)
        assert "TLKIT_OFFLINE (--offline) forbids the network" in done.stderr
    assert "TLKIT_OFFLINE" not in os.environ


def test_trust_is_required(tmp_path):
    class Writes(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable([[2.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32)])
        def __call__(self, x):
            tf.io.write_file(str(tmp_path / "evil"), "x")
            return x @ self.kernel

    tf.saved_model.save(Writes(), str(tmp_path / "writes"))
    done = tlkit_here("inspect", "writes", cwd=tmp_path, status=1)
    assert "WriteFile writes files" in done.stderr and "--trust" in done.stderr
    done = tlkit_here("inspect", "writes", "--trust", cwd=tmp_path)
    assert "files or network: WriteFile" in done.stdout
    assert not (tmp_path / "evil").exists()


def test_an_error_is_one_line_and_no_traceback(tmp_path):
    done = tlkit("predict", "runs/none", "text", cwd=tmp_path, status=1)
    assert done.stderr.strip().splitlines()[-1].startswith("tlkit predict: There is no")
    assert "Traceback" not in done.stderr


def test_a_demo_is_started_with_its_folders(tmp_path, monkeypatch):
    demo = lambda kind, **options: {"kind": kind} | options
    monkeypatch.setattr("tlkit.samples.demo", demo)
    done = tlkit_here("demo", "text", "--export", "served", "--json", cwd=tmp_path)
    folders = {"directory": "runs/demo", "export_to": "served"}
    assert last_json(done) == {"kind": "text"} | folders


DEMO = """
import json, sys
import tlkit
figures = tlkit.samples.demo(sys.argv[1], examples_per_class=json.loads(sys.argv[2]))
print(json.dumps(figures))
"""


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize(
    "kind, examples, least", [("text", 200, 0.95), ("image", None, 0.97)]
)
def test_the_demos_reach_their_accuracy(kind, examples, least, tmp_path):
    """The text demo on a part of its data; with all of it, it is above 0.97."""
    done = forked.run(
        [sys.executable, "-c", DEMO, kind, json.dumps(examples)],
        cwd=tmp_path,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = last_json(done)
    print(figures)
    assert figures["accuracy"] >= least
    assert 0.5 < figures["macro_f1"] <= 1
    assert figures["seconds"] > 0 and figures["peak_memory_mb"] > 0
    assert (tmp_path / figures["export"] / "saved_model.pb").is_file()
    assert figures["served_label"]
