"""Draws results with matplotlib, which the extra `plots` installs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, import_extra
from .evaluation_result import Evaluation
from .fit_report import Report
from .tables import shorten

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_TRAINING, _VALIDATION = "#8a94a6", "#1f5fbf"
_INK, _FAINT = "#2b2f36", "#d9dde3"
_MAX_NUMBERED = 15  # classes; with more, the cells have no numbers
_MAX_NAMED = 60  # classes; with more, the rows have no names


def plot_history(report: Report) -> matplotlib.figure.Figure:
    """Draws the loss and the metrics of every epoch, and marks the phases.

    Args:
        report: The result of `tlkit.fit`.

    Returns:
        A figure with one panel for the loss and one for each metric. A notebook shows
        it if it is the last value of a cell; `figure.savefig(path)` writes it.

    Raises:
        DataError: The history is empty.
        ExtraError: matplotlib is not installed.
    """
    names = [name for name in report.history if not name.startswith("val_")]
    names = [name for name in names if name != "learning_rate" and report.history[name]]
    if not names:
        raise DataError("The report has no history to draw: nothing was trained.")
    figure = _figure("plot_history", 4.6 * len(names), 3.4)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw_curve(axes, report, name)
    return figure


def plot_confusion(evaluation: Evaluation) -> matplotlib.figure.Figure:
    """Draws the confusion matrix.

    Args:
        evaluation: The result of `tlkit.evaluate`.

    Returns:
        A figure in which every row is a true class, and every column a predicted one.
        The color of a cell is its fraction of the row's examples. With up to 15
        classes, cells contain the number of examples.

    Raises:
        ExtraError: matplotlib is not installed.
    """
    counts = np.array(evaluation.confusion)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = float(np.clip(0.42 * classes, 1.8, 8.5))
    figure = _figure("plot_confusion", side + 2.8, side + 1.6)
    # The constrained layout cuts off labels beside axes of a fixed shape.
    figure.set_layout_engine("compressed")
    colors = import_extra("matplotlib.colors", "plots", "plot_confusion")
    axes = figure.subplots()
    # The square root makes errors of a few percent visible.
    norm = colors.PowerNorm(0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(fractions, cmap="Blues", norm=norm)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, aspect=25, shrink=0.9)
    bar.set_ticks([0, 0.05, 0.25, 1], labels=["0", "5 %", "25 %", "all"])
    bar.set_label("fraction of the true class", color=_INK, fontsize=8)
    bar.ax.tick_params(length=0, colors=_INK, labelsize=8)
    bar.outline.set_visible(False)
    _name_cells(axes, evaluation)
    if classes <= _MAX_NUMBERED:
        _number_cells(axes, counts, fractions)
    axes.set_xlabel("prediction", color=_INK)
    axes.set_ylabel("truth", color=_INK)
    axes.set_title(
        f"accuracy {evaluation.accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}",
        color=_INK,
        fontsize=10,
    )
    return figure


def _figure(purpose: str, width: float, height: float) -> matplotlib.figure.Figure:
    module = import_extra("matplotlib.figure", "plots", purpose)
    # pyplot would keep every figure in memory until it is closed, and would choose a
    # backend for the whole process.
    figure = module.Figure(figsize=(width, height), dpi=110, layout="constrained")
    # Without pyplot, notebooks show a figure only if it has this method.
    figure._repr_png_ = lambda: _png(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curve(axes: matplotlib.axes.Axes, report: Report, name: str) -> None:
    training = report.history[name]
    validation = report.history.get(f"val_{name}", ())
    # Epochs are numbered from 1 in the plot.
    axes.plot(
        range(1, len(training) + 1),
        training,
        color=_TRAINING,
        marker="o",
        markersize=3,
        label="training",
    )
    if validation:
        axes.plot(
            range(1, len(validation) + 1),
            validation,
            color=_VALIDATION,
            marker="o",
            markersize=4,
            linewidth=2,
            label="validation",
        )
        axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    _mark_phases(axes, report, len(training))
    axes.set_title(name.replace("_", " "), loc="left", color=_INK, fontsize=11, pad=18)
    axes.set_xlabel("epoch", color=_INK)
    axes.set_xlim(0.5, len(training) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)


def _mark_phases(axes: matplotlib.axes.Axes, report: Report, epochs: int) -> None:
    for index, phase in enumerate(report.phases):
        if not phase.epochs:
            continue
        start = phase.first_epoch + 0.5
        if index % 2:
            axes.axvspan(start, start + phase.epochs, color="#f3f5f8", zorder=0)
        width = max(6, int(40 * phase.epochs / max(epochs, 1)))
        axes.annotate(
            shorten(phase.name, width),
            (start + phase.epochs / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
            color=_TRAINING,
        )


def _name_cells(axes: matplotlib.axes.Axes, evaluation: Evaluation) -> None:
    classes = len(evaluation.labels)
    axes.tick_params(length=0, colors=_INK, labelsize=8 if classes <= 30 else 6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if classes > _MAX_NAMED:
        return
    names = [shorten(label, 18) for label in evaluation.labels]
    axes.set_yticks(range(classes), names)
    short = all(len(name) <= 3 for name in names)
    axes.set_xticks(range(classes), names, rotation=0 if short else 90)


def _number_cells(
    axes: matplotlib.axes.Axes, counts: np.ndarray, fractions: np.ndarray
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(
                column,
                row,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize=8 if count < 10_000 else 6,
                color="white" if fractions[row, column] > 0.4 else _INK,
            )
