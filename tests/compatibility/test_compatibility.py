"""Files that tlkit 0.1.0 wrote (see `write`) are still read."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.compatibility.write import HERE, IMAGES, LABELS, PAIRS, TEXTS, train

EXAMPLES = {"image": IMAGES, "text": TEXTS, "pair": PAIRS}


def expected_scores(name):
    return json.loads((HERE / "scores.json").read_text())[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_keras_file_predicts_the_same_scores(name):
    model = keras.saving.load_model(HERE / f"{name}.keras")
    found = tlkit.predict(model, EXAMPLES[name])
    scores = [[row.scores[label] for label in LABELS] for row in found]
    np.testing.assert_allclose(scores, expected_scores(name), atol=1e-5)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    shutil.copytree(HERE / "run", tmp_path / "run")
    model = keras.saving.load_model(HERE / "image.keras")
    train(model, tmp_path / "run", resume=True)
    with np.load(HERE / "trained.npz") as expected:
        for weight, name in zip(model.get_weights(), expected.files, strict=True):
            np.testing.assert_allclose(weight, expected[name], atol=1e-5)


def test_an_export_predicts_the_same_scores():
    served = tf.saved_model.load(str(HERE / "export" / "1"))
    outputs = served.signatures["serving_default"](text=tf.constant(TEXTS))
    np.testing.assert_allclose(outputs["scores"], expected_scores("text"), atol=1e-5)
    assert outputs["labels"][0].numpy().tolist() == [b"a", b"b", b"c"]


def test_shards_hold_the_same_examples():
    splits = tlkit.data.tfrecords(HERE / "shards")
    assert (splits.train.cardinality(), list(splits.labels)) == (6, LABELS)
    assert len(list(splits.train)) == 6
