"""`fit`, `evaluate` and `predict` from the outside."""

import contextlib
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.conftest import LABELS
from tlkit.errors import DataError, TrainingError
from tlkit.training import Phase, evaluate, fit, head_then_all, predict, strategy

GOOD = head_then_all(head_epochs=5, epochs=12, learning_rate=2e-2)


@pytest.fixture(scope="module")
def trained(image_encoder, splits, tmp_path_factory):
    """A trained model, its report and the run's folder."""
    model = tlkit.image_classifier(image_encoder, LABELS, image_size=8)
    folder = tmp_path_factory.mktemp("run") / "deep" / "run"
    report = fit(
        model, splits, schedule=GOOD, directory=folder, batch_size=6, verbose=0
    )
    return model, report, folder


def test_a_model_learns(trained, splits):
    model, report, _ = trained
    assert report.history["loss"][-1] < 0.7 * report.history["loss"][0]
    evaluation = evaluate(model, splits.test, verbose=0)
    assert evaluation.labels == tuple(LABELS)
    assert evaluation.examples == 6
    assert evaluation.accuracy > 0.8


def test_the_report_says_what_happened(trained, splits):
    model, report, folder = trained
    assert [phase.name for phase in report.phases] == ["head", "all"]
    assert [phase.epochs for phase in report.phases] == [5, 12]
    assert len(report.history["val_accuracy"]) == 17
    validation = report.evaluations["validation"]
    np.testing.assert_allclose(validation.loss, report.history["val_loss"][-1], 1e-5)
    np.testing.assert_allclose(validation.accuracy, report.history["val_accuracy"][-1])
    assert report.seed == 0 and report.seconds > 0
    assert set(os.listdir(folder)) == {"report.json", "plan.txt", "checkpoints"}
    written = json.loads((folder / "report.json").read_text())
    assert written["history"]["loss"] == report.history["loss"]
    assert "5 epochs, 15 steps" in (folder / "plan.txt").read_text()


def test_a_second_run_replaces_its_own_files_only(make_model, splits, tmp_path, capfd):
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "report.json").write_text("old")
    fit(make_model(), splits, schedule=Phase("head"), directory=tmp_path, verbose=0)
    assert set(os.listdir(tmp_path)) == {
        "mine.txt",
        "plan.txt",
        "report.json",
        "checkpoints",
    }
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert tlkit.reports.Report.load(tmp_path).phases[0].name == "head"
    assert "head" not in capfd.readouterr().err  # by verbose=0


def test_a_folder_that_cannot_be_made_is_an_error_before_training(
    make_model, splits, tmp_path
):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        fit(make_model(), splits, directory=tmp_path / "file" / "run", verbose=0)


def test_evaluate_takes_what_fit_takes(trained, splits):
    model = trained[0]
    raws, labels = next(splits.test.batch(6).as_numpy_iterator())
    whole = evaluate(model, splits.test, verbose=0)
    names = [LABELS[label] for label in labels]
    inputs = tf.data.Dataset.from_tensor_slices((raws.astype("float32"), labels))
    for found in (
        evaluate(model, raws, labels, batch_size=4, verbose=0),
        evaluate(model, raws, names, verbose=0),
        evaluate(model, inputs.batch(4), verbose=0),
    ):
        np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-5)
        assert found.confusion == whole.confusion
    with pytest.raises(DataError, match="no such split"):
        evaluate(model, None)


def test_evaluate_takes_any_compiled_classifier(plain_model, numbers):
    with pytest.raises(TrainingError, match="No loss is given"):
        evaluate(plain_model, *numbers, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain_model.compile(loss=loss)
    found = evaluate(plain_model, *numbers, verbose=0)
    assert found.labels == ("0", "1", "2")
    expected = loss(numbers[1], plain_model(numbers[0])) + sum(plain_model.losses)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_predictions_of_pictures(trained, splits, tmp_path):
    model = trained[0]
    raws, _ = next(splits.test.batch(6).as_numpy_iterator())
    scores = tlkit.models.task_of(model).scores(model(raws.astype("float32")).numpy())
    paths, encoded = [], []
    for i, raw in enumerate(raws):
        encoded.append(tf.io.encode_png(raw).numpy())
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(encoded[-1])
    for given in (raws, list(raws), paths, [str(path) for path in paths], encoded):
        found = predict(model, given, batch_size=4)
        for prediction, row in zip(found, scores, strict=True):
            assert prediction.label == LABELS[row.argmax()]
            np.testing.assert_allclose(prediction.score, row.max(), rtol=1e-4)
            values = [prediction.scores[label] for label in LABELS]
            np.testing.assert_allclose(values, row, rtol=1e-4)
    assert list(predict(model, paths[:1], top=1)[0].scores) == [
        LABELS[scores[0].argmax()]
    ]
    assert predict(model, []) == []


@pytest.mark.parametrize(
    "raws, words",
    [
        (["/nowhere/cat.png"], "/nowhere/cat.png"),
        ("cat.png", "several examples"),
        ([np.zeros(3)], "example 0"),
    ],
)
def test_predict_names_what_it_cannot_take(trained, raws, words):
    with pytest.raises(DataError, match=words):
        predict(trained[0], raws)


def test_texts_of_all_lengths_come_back_in_their_order(text_encoder):
    model = tlkit.text_classifier(text_encoder, ["bad", "good"], dropout=0.0)
    texts = ["film " * count + ["good", "bad"][count % 2] for count in range(12)]
    labels = [["good", "bad"][count % 2] for count in range(12)]
    schedule = Phase("head", epochs=5, learning_rate=0.1)
    report = fit(model, texts, labels, schedule=schedule, batch_size=4, verbose=0)
    assert report.history["loss"][-1] < report.history["loss"][0]
    found = predict(model, texts, batch_size=3)
    for number in (0, 11):  # the shortest and the longest
        (alone,) = predict(model, [texts[number]])
        np.testing.assert_allclose(found[number].score, alone.score, rtol=1e-5)
    evaluation = evaluate(model, texts, labels, batch_size=3, verbose=0)
    right = sum(f.label == label for f, label in zip(found, labels, strict=True))
    assert evaluation.accuracy == right / 12


def test_labels_must_be_those_of_the_data(image_encoder, splits):
    model = tlkit.image_classifier(image_encoder, ["a", "c", "b"], image_size=8)
    with pytest.raises(DataError, match="splits.labels"):
        fit(model, splits, verbose=0)


def test_class_weights_name_classes_that_exist(make_model, splits):
    with pytest.raises(DataError, match="label 'd'"):
        fit(make_model(), splits, class_weight={"d": 1.0}, verbose=0)


def test_class_weights_go_by_name_too_and_reach_cached_features(text_encoder):
    texts = ["good film !", "bad", "the good", "bad bad film"]
    ended = []
    for cache, class_weight in ((True, {"bad": 5.0}), (False, {0: 5.0}), (1, None)):
        model = tlkit.text_classifier(text_encoder, ["bad", "good"], dropout=0.0)
        fit(
            model,
            texts,
            ["good", "bad"] * 2,
            schedule=Phase("head", epochs=2),
            class_weight=class_weight,
            cache=bool(cache),
            verbose=0,
        )
        ended.append(model.get_layer("head").dense.bias.numpy())
    np.testing.assert_allclose(ended[0], ended[1], atol=1e-6)
    assert abs(ended[0] - ended[2]).max() > 1e-4


def test_the_default_schedule_is_head_then_all(make_model, pictures):
    x, y = pictures
    wrong = x[:6], (y[:6] + 1) % 3  # so that the validation loss soon grows
    report = fit(make_model(), x, y, validation_data=wrong, epochs=1, verbose=0)
    head, everything = report.phases
    assert (head.name, everything.name, everything.epochs) == ("head", "all", 1)
    losses = report.history["val_loss"][: head.epochs]
    # It waits for three epochs without a better loss, and for thirty at most.
    assert head.epochs == np.argmin(losses) + 4 < 30
    assert head_then_all(epochs=1)[0].epochs == 30


def test_verbose_prints_the_plan_and_a_line_an_epoch(make_model, splits, capfd):
    fit(make_model(), splits, schedule=Phase("head", epochs=2))
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "stage1" in printed.err and "head 2/2: loss" in printed.err
    assert "2 of 2 trained variables changed" in printed.err


def test_one_device_ends_where_no_strategy_does(make_model, splits):
    ended = []
    for place in (None, "auto", "cpu"):
        with contextlib.ExitStack() as stack:
            if place == "auto":  # `fit` takes a model of the scope, or any
                stack.enter_context(strategy(place).scope())
            model = make_model()
        fit(model, splits, schedule=Phase(1), strategy=place, verbose=0)
        ended.append(model.get_weights())
    for expected, one, other in zip(*ended, strict=True):
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected)


def test_a_strategy_that_is_not_there_is_an_error(plain_model, numbers):
    with pytest.raises(TrainingError, match="'auto', 'cpu'"):
        strategy("cuda")
    if not tf.config.list_physical_devices("GPU"):
        with pytest.raises(TrainingError, match="no GPU"):
            strategy("gpu")
