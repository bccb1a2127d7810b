import io

import matplotlib.pyplot
import numpy as np
import pytest
from PIL import Image

from tests.reports.test_fit_report import make_report
from tlkit.errors import DataError
from tlkit.reports import Report, evaluate_predictions, plot_confusion, plot_history


def _pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_history_draws_every_epoch_of_every_metric():
    figure = plot_history(make_report())
    loss, accuracy = figure.axes
    assert [loss.get_title(loc="left"), accuracy.get_title(loc="left")] == [
        "loss",
        "accuracy",
    ]
    assert [list(line.get_ydata()) for line in loss.lines] == [
        [1.0, 0.5, 0.25],
        [1.5, 0.75, 0.5],
    ]
    assert [list(line.get_xdata()) for line in loss.lines] == [[1, 2, 3]] * 2
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.5, 0.75, 1.0]]
    assert [text.get_text() for text in loss.texts] == ["head", "all"]
    assert len(np.unique(_pixels(figure).reshape(-1, 3), axis=0)) > 20


def test_history_of_nothing():
    with pytest.raises(DataError, match="no history to draw"):
        plot_history(Report({}))


def _evaluation(classes):
    scores = np.eye(classes)[np.arange(3 * classes) % classes]
    labels = np.arange(3 * classes) % classes
    labels[0] = 1
    names = [f"class {n}" for n in range(classes)]
    return evaluate_predictions(scores, labels, label_names=names)


def test_confusion_draws_shares_and_numbers():
    axes = plot_confusion(_evaluation(3)).axes[0]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.25, 0.75, 0], [0, 0, 1]])
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "2", (0, 1): "1", (1, 1): "3", (2, 2): "3"}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize(("classes", "names"), [(30, True), (80, False)])
def test_confusion_of_many_classes(classes, names):
    figure = plot_confusion(_evaluation(classes))
    axes = figure.axes[0]
    assert not axes.texts
    assert (
        "class 0" in {label.get_text() for label in axes.get_yticklabels()}
    ) == names
    # Nothing is cut off at the edges.
    pixels = _pixels(figure)
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_a_notebook_can_show_it_and_pyplot_keeps_nothing():
    figure = plot_history(make_report())
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert matplotlib.pyplot.get_fignums() == []
