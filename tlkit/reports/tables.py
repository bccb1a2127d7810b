"""Formats results as text for a terminal or a log.

Tested in tests/reports/test_evaluation_result.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluation_result import ClassRow, Evaluation

_FEW = 20  # classes; with more, only the worst are shown
_WORST = 10  # classes, and pairs of classes, that are shown then
_NAME_WIDTH = 28


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Formats rows as a table with aligned columns.

    Args:
        header: The names of the columns.
        rows: The rows, each as long as the header.
        left: The number of columns that are aligned left; the others are aligned right.

    Returns:
        The lines, joined, without trailing blanks.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def shorten(text: str, width: int = _NAME_WIDTH) -> str:
    """Joins the lines of a text, and shortens the result to `width` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def evaluation_line(evaluation: Evaluation) -> str:
    """Formats the metrics over all classes as one line."""
    return (
        f"accuracy {evaluation.accuracy:.4f}, macro F1 {evaluation.macro_f1:.4f} "
        f"(precision {evaluation.macro_precision:.4f}, recall "
        f"{evaluation.macro_recall:.4f}), loss {evaluation.loss:.4f}, "
        f"{evaluation.examples:,} examples"
    )


def evaluation_table(
    evaluation: Evaluation, confused: Sequence[tuple[str, str, int]]
) -> str:
    """Formats all metrics of up to 20 classes, or those of the worst classes.

    Args:
        evaluation: The evaluation.
        confused: True label, predicted label and count of pairs, by descending count.
    """
    parts = [evaluation_line(evaluation)]
    if len(evaluation.labels) <= _FEW:
        parts.append(_class_table(evaluation.per_class))
        parts.append(
            "confusion (rows: truth, columns: prediction)\n"
            + _confusion_table(evaluation)
        )
        return "\n\n".join(parts)
    occurring = [row for row in evaluation.per_class if row.support]
    worst = sorted(occurring, key=lambda row: (row.f1, -row.support))[:_WORST]
    parts.append(
        f"the {len(worst)} worst of {len(evaluation.labels)} classes\n"
        + _class_table(worst)
    )
    parts.append("most often mistaken\n" + _pairs_table(confused[:_WORST]))
    return "\n\n".join(parts)


def _class_table(rows: Sequence[ClassRow]) -> str:
    cells = [
        (
            shorten(row.label),
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            f"{row.support:,}",
        )
        for row in rows
    ]
    return table(("label", "precision", "recall", "F1", "examples"), cells)


def _confusion_table(evaluation: Evaluation) -> str:
    # Columns have numbers: twenty names do not fit side by side.
    numbers = [str(number) for number in range(len(evaluation.labels))]
    rows = [
        (number, shorten(label), *(f"{count:,}" if count else "·" for count in counts))
        for number, label, counts in zip(
            numbers, evaluation.labels, evaluation.confusion, strict=True
        )
    ]
    return table(("", "label", *numbers), rows, left=2)


def _pairs_table(pairs: Sequence[tuple[str, str, int]]) -> str:
    rows = [
        (shorten(truth), shorten(prediction), f"{count:,}")
        for truth, prediction, count in pairs
    ]
    return table(("truth", "prediction", "examples"), rows, left=2) if rows else "none"
