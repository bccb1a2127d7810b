import json
import math

import numpy as np
import pytest

import tlkit.reports
from tlkit.errors import DataError

# The figures in this file were computed once with scikit-learn 1.9.1.
_TRUTH = [0, 0, 0, 1, 1, 2, 2, 2, 2, 4]
_PREDICTED = [0, 1, 0, 1, 1, 2, 0, 2, 3, 2]
_NAMES = ("a", "b", "c", "predicted only", "true only", "neither")


def _evaluate(truth=_TRUTH, predicted=_PREDICTED, names=_NAMES, **options):
    return tlkit.reports.evaluate_predictions(
        np.eye(len(names))[list(predicted)], truth, label_names=names, **options
    )


def test_figures_are_those_of_scikit_learn():
    evaluation = _evaluate()
    assert evaluation.accuracy == 0.6
    # precision_recall_fscore_support(average="macro", zero_division=0)
    assert evaluation.macro_precision == pytest.approx(0.4, abs=1e-12)
    assert evaluation.macro_recall == pytest.approx(0.4333333333333333, abs=1e-12)
    assert evaluation.macro_f1 == pytest.approx(0.4076190476190476, abs=1e-12)
    assert evaluation.examples == 10
    assert evaluation.labels == _NAMES


def test_figures_of_each_class():
    rows = _evaluate().per_class
    assert [row.label for row in rows] == list(_NAMES)
    two_thirds = 0.6666666666666666
    expected = {
        "precision": [two_thirds, two_thirds, two_thirds, 0, 0, 0],
        "recall": [two_thirds, 1, 0.5, 0, 0, 0],
        "f1": [two_thirds, 0.8, 0.5714285714285714, 0, 0, 0],
        "support": [3, 2, 4, 0, 1, 0],
        "predicted": [3, 3, 3, 1, 0, 0],
    }
    for name, values in expected.items():
        found = [getattr(row, name) for row in rows]
        assert found == pytest.approx(values, abs=1e-12), name


def test_confusion_has_the_truth_in_rows():
    assert _evaluate().confusion == (
        (2, 1, 0, 0, 0, 0),
        (0, 2, 0, 0, 0, 0),
        (1, 0, 2, 1, 0, 0),
        (0, 0, 0, 0, 0, 0),
        (0, 0, 1, 0, 0, 0),
        (0, 0, 0, 0, 0, 0),
    )


def test_most_confused():
    evaluation = _evaluate([0, 0, 1, 2, 2, 2], [1, 1, 0, 2, 0, 2], ("a", "b", "c"))
    confused = tlkit.reports.most_confused(evaluation)
    assert confused == [("a", "b", 2), ("b", "a", 1), ("c", "a", 1)]
    assert tlkit.reports.most_confused(evaluation, 1) == [("a", "b", 2)]


def test_loss_of_logits():
    logits = [[2.0, 0, 1], [0, 1.5, -1], [0.5, 0.25, 0], [-1, 0, 3]]
    evaluation = tlkit.reports.evaluate_predictions(
        logits, [0, 1, 2, 2], label_names="abc"
    )
    assert evaluation.loss == pytest.approx(0.5272989631036553, abs=1e-12)
    assert evaluation.macro_f1 == pytest.approx(0.7777777777777777, abs=1e-12)
    large = 1000 * np.array(logits)
    evaluation = tlkit.reports.evaluate_predictions(
        large, [0, 1, 2, 2], label_names="abc"
    )
    assert evaluation.loss == 125.0


def test_loss_of_probabilities():
    probabilities = [[0.7, 0.2, 0.1], [0, 0.9, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]]
    evaluation = tlkit.reports.evaluate_predictions(
        probabilities, np.array([0, 1, 2, 1], np.int32), label_names="abc"
    )
    assert evaluation.loss == pytest.approx(0.6911551381476511, abs=1e-12)
    assert evaluation.accuracy == 0.75


def test_a_probability_of_zero_and_a_loss_that_is_known():
    assert _evaluate([0, 1], [0, 0], "ab").loss == pytest.approx(-math.log(1e-7) / 2)
    assert _evaluate(loss=0.25).loss == 0.25


def test_scores_that_are_not_numbers():
    scores = np.full((2, 2), np.nan)
    evaluation = tlkit.reports.evaluate_predictions(scores, [0, 1], label_names="ab")
    assert math.isnan(evaluation.loss)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((3, 3)), [0, 1, 0], r"shape \[n, 2\].*got \[3, 3\]"),
        (np.zeros(3), [0, 1, 0], r"shape \[n, 2\].*got \[3\]"),
        (np.zeros((3, 2)), [0, 1], r"shape \[3\].*got \[2\]"),
        (np.zeros((3, 2)), np.eye(3), r"shape \[3\].*got \[3, 3\]"),
        (np.zeros((2, 2)), [0, 2], r"integers from 0 to 1; got int64 from 0 to 2"),
        (np.zeros((2, 2)), [-1, 0], r"integers from 0 to 1; got int64 from -1"),
        (np.zeros((2, 2)), [0.0, 1.0], r"integers from 0 to 1; got float64"),
        (np.zeros((0, 2)), [], "no predictions"),
    ],
)
def test_what_does_not_fit(scores, labels, message):
    with pytest.raises(DataError, match=message):
        tlkit.reports.evaluate_predictions(scores, labels, label_names="ab")


def test_json_there_and_back():
    evaluation = _evaluate()
    text = evaluation.to_json()
    assert tlkit.reports.Evaluation.from_json(text) == evaluation
    found = json.loads(text)
    assert found["accuracy"] == 0.6
    assert found["confusion"][2] == [1, 0, 2, 1, 0, 0]
    assert found["per_class"][1]["label"] == "b"


def test_json_without_a_loss():
    text = _evaluate(loss=math.nan).to_json()
    assert json.loads(text)["loss"] is None
    assert math.isnan(tlkit.reports.Evaluation.from_json(text).loss)


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", '{"loss": 1}'])
def test_json_of_something_else(text):
    with pytest.raises(DataError, match="not an evaluation in JSON"):
        tlkit.reports.Evaluation.from_json(text)


_TABLE = """\
accuracy 0.6667, macro F1 0.6556 (precision 0.7222, recall 0.6667), loss 0.5000, \
6 examples

label                         precision  recall     F1  examples
a                                 0.500   0.500  0.500         2
b                                 0.667   1.000  0.800         2
a very long name of a class…      1.000   0.500  0.667         2

confusion (rows: truth, columns: prediction)
   label                         0  1  2
0  a                             1  1  ·
1  b                             ·  2  ·
2  a very long name of a class…  1  ·  1"""


def test_table_of_few_classes():
    names = ("a", "b", "a very long name of a class that is cut")
    evaluation = _evaluate([0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2, 0], names, loss=0.5)
    assert str(evaluation) == _TABLE


def test_table_of_many_classes_shows_the_worst():
    truth = np.arange(42) % 21
    predicted = truth.copy()
    predicted[20] = predicted[41] = 7
    predicted[3] = 4
    names = [f"class {n}" for n in range(21)]
    text = str(_evaluate(truth, predicted, names))
    assert "the 10 worst of 21 classes" in text
    worst = text.split("examples\n")[2].split("\n\n")[0].splitlines()
    assert [line.split("  ")[0] for line in worst[:4]] == [
        "class 20",
        "class 3",
        "class 7",
        "class 4",
    ]
    assert len(worst) == 10
    mistaken = text.split("most often mistaken\n")[1].splitlines()
    assert [line.split() for line in mistaken[1:]] == [
        ["class", "20", "class", "7", "2"],
        ["class", "3", "class", "4", "1"],
    ]
