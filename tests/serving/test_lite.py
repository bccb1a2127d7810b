"""LiteRT models predict about what the full ones do, or are not written."""

import sys

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.serving.real_models import REAL
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.errors import ExportError
from tlkit.serving.export_examples import evenly_spaced
from tlkit.serving.lite import LiteReport, write_lite

LABELS = ["dark", "bright", "red"]
TEXTS = ["good film", "the bad films!", "bad", "good good good film", "the film", "!"]


def interpreter(path):
    return pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))


def pictures(count):
    random = np.random.default_rng(1)
    shade = random.uniform(0, 200, (count, 1, 1, 3))
    x = shade + random.uniform(0, 55, (count, 8, 8, 3))
    return x.astype("uint8")


def with_random_head(model):
    dense = model.get_layer("head").dense
    random = np.random.default_rng(2).normal(size=dense.kernel.shape)
    dense.kernel.assign(3 * random)
    return model


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    source = write_image_encoder(tmp_path_factory.mktemp("images") / "1")
    return with_random_head(tlkit.image_classifier(source, LABELS, image_size=8))


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    source = write_text_encoder(tmp_path_factory.mktemp("texts") / "1")
    return with_random_head(tlkit.text_classifier(source, ["good", "bad"], length=6))


def scores_of(model, examples):
    preprocess = models.preprocessing(model, fixed_length=True)
    inputs = preprocess.batch(tf.constant(examples))
    return inputs, models.task_of(model).scores(model(inputs))


@pytest.mark.parametrize("precision, apart", [("float16", 2e-3), ("int8", 0.06)])
def test_a_lite_image_model_predicts_as_the_full_one(
    image_model, tmp_path, precision, apart
):
    x = pictures(80)
    inputs, expected = scores_of(image_model, x)
    labels = expected.argmax(axis=1)
    path = tmp_path / "deep" / "small.tflite"
    report = write_lite(image_model, path, precision, x, labels, limit=0.05)
    learned = [] if precision == "float16" else evenly_spaced(80, 40)  # int8's ranges
    measured = np.setdiff1d(np.arange(80), learned)
    assert report.rows == len(x[measured]) and report.path == path
    assert report.bytes == path.stat().st_size
    assert report.megabytes == pytest.approx(report.bytes / 1e6)
    assert report.accuracy == 1.0
    assert report.small_accuracy == report.agreement >= 0.95

    runner = interpreter(path).get_signature_runner("serving_default")
    details = runner.get_input_details()["pixels"]
    assert details["shape"].tolist() == [1, 8, 8, 3]
    assert details["dtype"] is np.float32
    rows = inputs.numpy()[measured]
    found = np.concatenate([runner(pixels=row[None])["scores"] for row in rows])
    difference = np.abs(found - expected[measured]).max()
    assert difference == pytest.approx(report.largest_difference, abs=1e-5)
    assert 0 < difference < apart


@pytest.mark.parametrize("precision, apart", [("float16", 5e-3), ("int8", 0.1)])
def test_a_lite_text_model_takes_token_ids(text_model, tmp_path, precision, apart):
    path = tmp_path / "small.tflite"
    inputs, expected = scores_of(text_model, TEXTS)
    report = write_lite(text_model, path, precision, TEXTS, calibration=TEXTS)
    assert (report.accuracy, report.small_accuracy) == (None, None)
    assert (report.rows, report.agreement, report.accuracy_drop) == (6, 1.0, 0.0)
    runner = interpreter(path).get_signature_runner("serving_default")
    rows = [{k: x[i : i + 1].numpy() for k, x in inputs.items()} for i in range(6)]
    found = np.concatenate([runner(**row)["scores"] for row in rows])
    np.testing.assert_allclose(found, expected, atol=apart)


def test_a_model_that_loses_too_much_is_not_written(image_model, tmp_path):
    x = pictures(40)
    _, expected = scores_of(image_model, x)
    labels = expected.argmax(axis=1)
    wild = (x // 255).astype("uint8")  # black images: their ranges fit no other image
    with pytest.raises(ExportError, match="int8 model was not written.*of accuracy"):
        write_lite(
            image_model, tmp_path / "a.tflite", "int8", x, labels, calibration=wild
        )
    with pytest.raises(ExportError, match="of the predicted labels"):
        write_lite(image_model, tmp_path / "a.tflite", "int8", x, calibration=wild)
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "a.tflite"
    report = write_lite(
        image_model, path, "int8", x, labels, calibration=wild, limit=1.0
    )
    assert path.exists() and report.accuracy_drop > 0.01


def test_without_the_extra_tensorflow_runs_it(image_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    report = write_lite(image_model, tmp_path / "a.tflite", "float16", pictures(4))
    assert report.rows == 4 and report.agreement == 1.0


class _Odd(tf.Module):
    """An encoder with an op that LiteRT lacks."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.ones((3, 2)), name="stage1/kernel")

    @tf.function
    def __call__(self, inputs, training=False):
        x = tf.reduce_mean(inputs, (1, 2)) @ self.kernel
        return tf.math.igamma(tf.ones_like(x), x)


def test_a_missing_op_is_named(tmp_path):
    module = _Odd()
    for training in (False, True):
        spec = tf.TensorSpec((None, None, None, 3), tf.float32)
        module.__call__.get_concrete_function(spec, training=training)
    tf.saved_model.save(module, str(tmp_path / "odd" / "1"))
    model = tlkit.image_classifier(tmp_path / "odd", LABELS, image_size=8)
    with_random_head(model)
    path = tmp_path / "a.tflite"
    with pytest.raises(ExportError, match=r"to float16: LiteRT has no tf\.Igamma\. "):
        write_lite(model, path, "float16", pictures(4))
    assert not path.exists()


def test_int8_needs_two_examples(image_model, tmp_path):
    for examples in ([], pictures(1)):
        with pytest.raises(ExportError, match="Give at least two"):
            write_lite(image_model, tmp_path / "a.tflite", "int8", examples)
    assert list(tmp_path.iterdir()) == []


def test_a_report_prints_its_figures(tmp_path):
    report = LiteReport(tmp_path, "int8", 1_250_000, 200, 0.97, 0.955, 0.98, 0.125)
    assert report.accuracy_drop == pytest.approx(0.015)
    assert "int8, 1.25 MB" in str(report)
    assert "accuracy 0.9700, small 0.9550, on 200 examples" in str(report)
    assert "98.00% of 200 examples, scores differ by 0.1250" in str(report)


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_models_become_lite_models(name, tmp_path):
    splits, model = REAL[name]()
    phase = tlkit.Phase("head", epochs=4, learning_rate=1e-2)
    tlkit.fit(model, splits, schedule=phase, batch_size=16, verbose=0)
    raws, labels = next(splits.train.batch(1000).as_numpy_iterator())
    full = 4 * sum(np.prod(v.shape) for v in model.get_layer("encoder").weights)
    for precision, share in (("float16", 0.51), ("int8", 0.28)):
        path = tmp_path / f"{precision}.tflite"
        report = write_lite(model, path, precision, raws[:80], labels[:80])
        print(report)
        assert report.accuracy > 0.9
        assert report.bytes < share * full
