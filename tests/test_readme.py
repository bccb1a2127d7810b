"""The examples of the README run."""

import json
import pathlib
import re

import numpy as np
import tensorflow as tf

import tlkit
from tests.markdown import README, blocks, replaced
from tests.tiny import write_image_encoder, write_text_encoder

# Small replacements; `tlkit demo text`, which the long tests run, is the same job with
# the real encoder and data.
SMALL = {
    'tlkit.samples.encoder("minilm")': "ENCODER",
    'tlkit.samples.splits("reuters-r8")': "SPLITS",
    "epochs=15": "epochs=2",
}
FIT = "tlkit.fit(model, splits, "
QUICKLY = f'{FIT}schedule=tlkit.Phase("head"), verbose=0, '


def first_lines():
    return blocks("python")[0]


def small_splits():
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
    (prediction,) = tlkit.predict(names["model"], ["good film"])
    assert answer["label"].numpy()[0].decode() == prediction.label
    np.testing.assert_allclose(answer["score"].numpy()[0], prediction.score, atol=1e-5)
    saved = json.loads(pathlib.Path("runs/reuters/report.json").read_text())
    assert len(saved["history"]["loss"]) == 4
    assert "layer_1" in capsys.readouterr().out


def example(words):
    """Returns the one example that contains some words."""
    (code,) = [code for code in blocks("python") if words in code]
    return code


def test_the_examples_of_texts_and_of_pairs_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["good,the good,same", "bad,the bad,same", "good,bad,no", "bad,good,no"]
    table = "\n".join(["premise,hypothesis,relation", *rows * 10])
    pathlib.Path("snli.csv").write_text(table)
    encoder = write_text_encoder(tmp_path / "encoder" / "1")
    names = {"tlkit": tlkit, "encoder": encoder, "labels": ["good", "bad"]}
    exec(example('text=("premise", "hypothesis")'), names)
    assert names["splits"].labels == ("no", "same")
    assert set(names["model"].get_layer("head").task.labels) == {"good", "bad"}


def test_the_examples_of_sampling_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = small_splits()
    model = tlkit.text_classifier(
        write_text_encoder(tmp_path / "encoder" / "1"), splits.labels
    )
    small = {
        'tlkit.data.tfds("beans", examples_per_class=20)': "splits",
        FIT: QUICKLY,
    }
    names = {"tlkit": tlkit, "splits": splits, "ours": splits, "public": splits}
    names["model"] = model
    exec(replaced(example("write_shards"), small), names)
    assert names["few"].sizes["train"] == 10
    counts = tlkit.data.class_counts(names["even"])
    assert counts["good"] == counts["bad"]
    assert pathlib.Path("flowers-shards/shards.json").is_file()


def test_the_examples_of_caches_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "cache"))
    splits = small_splits()
    model = tlkit.text_classifier(
        write_text_encoder(tmp_path / "encoder" / "1"), splits.labels
    )
    names = {"tlkit": tlkit, "splits": splits, "model": model}
    code = replaced(example("tlkit.ActivationCache"), {FIT: QUICKLY})
    exec(code, names)
    # Activations cached on disk are in the folder that the example names.
    assert any((tmp_path / "activations").iterdir())
    assert any((tmp_path / "cache" / "activations").iterdir())


def test_the_example_of_augmentation_runs(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (20, 16, 16, 3)).astype(np.uint8)
    splits = tlkit.data.arrays(images, ["cat", "dog"] * 10)
    encoder = write_image_encoder(tmp_path / "encoder" / "1")
    model = tlkit.image_classifier(encoder, splits.labels, image_size=16)
    names = {"tlkit": tlkit, "splits": splits, "model": model}
    exec(replaced(example("Augmentation("), {FIT: QUICKLY}), names)
    sheet = names["augmentation"].show(images[:2])
    assert sheet.shape == (32, 7 * 16, 3)
    assert len(set(np.asarray(sheet[:16, 16:32]).ravel().tolist())) > 1


def test_the_test_command_is_there_for_continuous_integration():
    (command,) = re.findall(r"^\$ (pip install .*pytest.*)$", README.read_text(), re.M)
    assert command == 'pip install -e ".[test]" && pytest -n 2 --dist loadfile'


def test_the_table_of_modules_names_modules_that_exist():
    table = README.read_text().partition("| to change | look in |\n")[2]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    for row in rows:
        folder, *names = re.findall("`(.+?)`", row)
        path = README.parent / folder
        assert path.exists(), folder
        for name in names:
            module = path / (name if name.endswith("/") else f"{name}.py")
            assert module.exists(), (folder, name)


def test_every_python_example_can_be_compiled():
    for number, code in enumerate(blocks("python")):
        compile(code, f"README.md, example {number}", "exec")
