"""Exports answer raw examples in a process that knows nothing of tlkit."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.errors import ExportError

TEXTS = ["good film", "the bad films!", ""]

# Reads examples as hexadecimal strings, prints what the signature answers.
SERVE = """
import json, sys
import tensorflow as tf
folder, name, examples = sys.argv[1:]
if name == "text":
    import tensorflow_text
given = tf.constant([bytes.fromhex(x) for x in json.loads(examples)])
answer = tf.saved_model.load(folder).signatures["serving_default"](**{name: given})
print(json.dumps({
    "label": [x.decode() for x in answer["label"].numpy()],
    "score": answer["score"].numpy().tolist(),
    "scores": answer["scores"].numpy().tolist(),
    "labels": [[x.decode() for x in row] for row in answer["labels"].numpy()],
    "tlkit": "tlkit" in sys.modules,
}))
"""


def serve(folder, name, examples):
    hexadecimal = json.dumps([bytes(example).hex() for example in examples])
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(folder), name, hexadecimal],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def with_random_head(model):
    dense = model.get_layer("head").dense
    random = np.random.default_rng(2).normal(size=dense.kernel.shape)
    dense.kernel.assign(random)
    return model


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    source = write_image_encoder(tmp_path_factory.mktemp("images") / "1")
    model = tlkit.image_classifier(source, ["cat", "dog"], image_size=8)
    return with_random_head(model)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    source = write_text_encoder(tmp_path_factory.mktemp("texts") / "1")
    return with_random_head(tlkit.text_classifier(source, ["good", "bad", "odd"]))


def expected(model, examples):
    inputs = models.preprocessing(model).batch(tf.constant(examples))
    return models.task_of(model).scores(model(inputs))


def check(answer, scores, labels):
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)
    np.testing.assert_allclose(answer["score"], scores.max(axis=1), atol=1e-5)
    assert answer["label"] == [labels[i] for i in scores.argmax(axis=1)]
    assert answer["labels"] == [list(labels)] * len(scores)
    assert answer["tlkit"] is False


def test_a_text_model_answers_raw_strings(text_model, tmp_path):
    path = tlkit.export(text_model, tmp_path / "texts")
    assert path == tmp_path / "texts" / "1"
    answer = serve(path, "text", [text.encode() for text in TEXTS])
    check(answer, expected(text_model, TEXTS), ["good", "bad", "odd"])


def test_an_image_model_answers_encoded_pictures_of_any_size(image_model, tmp_path):
    random = np.random.default_rng(0)
    pictures = [
        tf.io.encode_png(random.integers(0, 256, (9, 30, 3)).astype(np.uint8)),
        tf.io.encode_jpeg(random.integers(0, 256, (64, 50, 3)).astype(np.uint8)),
        tf.io.encode_png(random.integers(0, 256, (8, 8, 1)).astype(np.uint8)),
    ]
    encoded = [picture.numpy() for picture in pictures]
    path = tlkit.export(image_model, tmp_path / "images")
    answer = serve(path, "image_bytes", encoded)
    check(answer, expected(image_model, encoded), ["cat", "dog"])


def test_versions_count_up_and_notes_ride_along(text_model, tmp_path):
    first = tlkit.export(text_model, tmp_path)
    second = tlkit.export(text_model, tmp_path)
    ninth = tlkit.export(text_model, tmp_path, version=9)
    tenth = tlkit.export(text_model, tmp_path)
    assert [p.name for p in (first, second, ninth, tenth)] == ["1", "2", "9", "10"]
    notes = json.loads((tenth / "assets.extra" / "tlkit_export.json").read_text())
    assert notes["labels"] == ["good", "bad", "odd"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "10", "2", "9"]


def test_weights_are_written_once(image_model, tmp_path):
    path = tlkit.export(image_model, tmp_path)
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    written = sum(np.prod(s) for n, s in shapes.items() if "weights" in n)
    assert written == sum(np.prod(v.shape) for v in image_model.variables)
    others = [name for name in shapes if not name.startswith("weights/")]
    assert others == ["_CHECKPOINTABLE_OBJECT_GRAPH"]


def test_an_existing_version_is_left_alone(text_model, tmp_path):
    path = tlkit.export(text_model, tmp_path, version=3)
    before = (path / "saved_model.pb").read_bytes()
    with pytest.raises(ExportError, match=r"3 is there already.*next free one \(4\)"):
        tlkit.export(text_model, tmp_path, version=3)
    assert (path / "saved_model.pb").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["3"]


def test_a_failing_export_leaves_nothing(text_model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        tlkit.export(text_model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file_is_refused(text_model, tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"):
        tlkit.export(text_model, place)
    assert place.read_text() == "mine"


def test_bad_versions_and_other_models_are_refused(text_model, tmp_path):
    with pytest.raises(ExportError, match="from 1 up. Received: 0"):
        tlkit.export(text_model, tmp_path, version=0)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ExportError, match="models that tlkit built"):
        tlkit.export(other, tmp_path)
    assert list(pathlib.Path(tmp_path).iterdir()) == []
