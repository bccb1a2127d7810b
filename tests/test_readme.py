"""What the README shows is what runs."""

import json
import pathlib
import re

import numpy as np
import tensorflow as tf

from tests.markdown import README, blocks, replaced
from tests.tiny import write_text_encoder

# Enough to run each line; `tlkit demo text`, which the long tests run, is the same job
# on the real encoder and data.
SMALL = {
    'tlkit.samples.encoder("minilm")': "ENCODER",
    'tlkit.samples.splits("reuters-r8")': "SPLITS",
}


def first_lines():
    return blocks("python")[0]


def small_splits():
    import tlkit

    texts = ["good film", "the good", "bad film", "the bad !"] * 10
    return tlkit.data.arrays(texts, ["good", "good", "bad", "bad"] * 10)


def test_the_first_example_has_at_most_fifteen_lines():
    lines = [line for line in first_lines().splitlines() if line.strip()]
    assert len(lines) <= 15


def test_the_first_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = write_text_encoder(tmp_path / "encoder" / "1")
    names = {"ENCODER": source, "SPLITS": small_splits()}
    exec(replaced(first_lines(), SMALL), names)
    served = tf.saved_model.load(str(names["path"])).signatures["serving_default"]
    answer = served(text=tf.constant(["good film"]))
    (told,) = __import__("tlkit").predict(names["model"], ["good film"])
    assert answer["label"].numpy()[0].decode() == told.label
    np.testing.assert_allclose(answer["score"].numpy()[0], told.score, atol=1e-5)
    saved = json.loads(pathlib.Path("runs/reuters/report.json").read_text())
    assert len(saved["history"]["loss"]) == 17
    assert "layer_1" in capsys.readouterr().out


def test_the_test_command_is_there_for_continuous_integration():
    (command,) = re.findall(r"^\$ (pip install .*pytest)$", README.read_text(), re.M)
    assert command == 'pip install -e ".[test]" && pytest'


def test_every_python_example_can_be_compiled():
    for number, code in enumerate(blocks("python")):
        compile(code, f"README.md, example {number}", "exec")
