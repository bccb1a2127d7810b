"""Figures as text, for a terminal or a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .evaluation_result import ClassRow, Evaluation

_FEW = 20  # classes that are shown in full
_WORST = 10  # rows and pairs that are shown of more
_NAME_WIDTH = 28


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Sets rows in columns.

    Args:
        header: The heads of the columns.
        rows: The rows, each as long as the header.
        left: How many columns are set flush left; the others are flush right.

    Returns:
        The lines, joined, without blanks at their ends.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def cut(text: str, width: int = _NAME_WIDTH) -> str:
    """Shortens a text to a width, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def evaluation_line(evaluation: Evaluation) -> str:
    """The figures over all classes, on one line."""
    return (
        f"accuracy {evaluation.accuracy:.4f}, macro F1 {evaluation.macro_f1:.4f} "
        f"(precision {evaluation.macro_precision:.4f}, recall "
        f"{evaluation.macro_recall:.4f}), loss {evaluation.loss:.4f}, "
        f"{evaluation.examples:,} examples"
    )


def evaluation_table(
    evaluation: Evaluation, confused: Sequence[tuple[str, str, int]]
) -> str:
    """All figures of up to 20 classes, or the worst of more.

    Args:
        evaluation: The evaluation.
        confused: True labels, predicted labels and how often; the most often first.
    """
    parts = [evaluation_line(evaluation)]
    if len(evaluation.labels) <= _FEW:
        parts.append(_class_table(evaluation.per_class))
        parts.append(
            "confusion (rows: truth, columns: prediction)\n"
            + _confusion_table(evaluation)
        )
        return "\n\n".join(parts)
    seen = [row for row in evaluation.per_class if row.support]
    worst = sorted(seen, key=lambda row: (row.f1, -row.support))[:_WORST]
    parts.append(
        f"the {len(worst)} worst of {len(evaluation.labels)} classes\n"
        + _class_table(worst)
    )
    parts.append("most often mistaken\n" + _pairs_table(confused[:_WORST]))
    return "\n\n".join(parts)


def _class_table(rows: Sequence[ClassRow]) -> str:
    cells = [
        (
            cut(row.label),
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            f"{row.support:,}",
        )
        for row in rows
    ]
    return table(("label", "precision", "recall", "F1", "examples"), cells)


def _confusion_table(evaluation: Evaluation) -> str:
    # Columns go by number: twenty names do not fit beside each other.
    numbers = [str(number) for number in range(len(evaluation.labels))]
    rows = [
        (number, cut(label), *(f"{count:,}" if count else "·" for count in counts))
        for number, label, counts in zip(
            numbers, evaluation.labels, evaluation.confusion, strict=True
        )
    ]
    return table(("", "label", *numbers), rows, left=2)


def _pairs_table(pairs: Sequence[tuple[str, str, int]]) -> str:
    rows = [(cut(truth), cut(found), f"{count:,}") for truth, found, count in pairs]
    return table(("truth", "prediction", "examples"), rows, left=2) if rows else "none"
