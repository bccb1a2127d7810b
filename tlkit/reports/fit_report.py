"""What happened in a run of `tlkit.fit`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.examples import Skipped
from ..errors import DataError
from ..files import atomic_file, strict_json
from . import tables
from .evaluation_result import Evaluation, read_evaluation

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class PhaseReport:
    """What happened in one phase.

    Attributes:
        name: The name of the phase.
        epochs: How many epochs it took.
        first_epoch: The index of its first epoch in the history.
        train_seconds: How long it took.
        blocks: The names of the encoder's blocks that were trained.
        parameters_trained: How many parameters were, those of the head included.
        learning_rate: Its peak learning rate.
    """

    name: str
    epochs: int
    first_epoch: int
    train_seconds: float
    blocks: tuple[str, ...]
    parameters_trained: int
    learning_rate: float


@dataclass(frozen=True)
class Report:
    """What `tlkit.fit` did, and how good the model is.

    Attributes:
        history: The figures of every epoch, through all phases, by Keras's names:
            `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"`, ….
        phases: What happened in each phase.
        seconds: How long everything took.
        evaluations: How good the model is in the end, by the name of the split.
        skipped: The examples that were left out of the data, and why.
        model: What the model is, in a few lines.
        plan: Which blocks each phase trained, as `tlkit.plan` prints it.
        versions: The versions of tlkit, TensorFlow, Keras and Python.
        seed: The seed of the run, or `None`.
    """

    history: Mapping[str, Sequence[float]]
    phases: tuple[PhaseReport, ...] = ()
    seconds: float = 0.0
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    model: str = ""
    plan: str = ""
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    seed: int | None = None

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes `report.json` into a folder, which is made if it is missing.

        Args:
            directory: The folder of the run.

        Returns:
            The path of the file. A report that stood there is replaced.

        Raises:
            DataError: It cannot be written. What stood there is as it was.
        """
        path = Path(directory).expanduser() / REPORT_FILE
        try:
            with atomic_file(path) as temporary:
                temporary.write_text(self.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"The report cannot be written to {path}: {error.strerror}."
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Reads what `save` wrote.

        Args:
            path: The folder of a run, or its `report.json`.

        Raises:
            DataError: There is no report, or it is something else.
        """
        file = Path(path).expanduser()
        file = file / REPORT_FILE if file.is_dir() else file
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"There is no report at {file}: {error.strerror}. tlkit.fit writes one "
                'into the folder of the run. Type: tlkit.fit(…, directory="runs/…")'
            ) from error
        except ValueError as error:
            raise DataError(f"{file} is not a report: {error}") from error

    def to_json(self) -> str:
        """Writes it as a JSON object; what is not a finite number becomes `null`."""
        return strict_json.dump(self)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            DataError: It is something else.
        """
        try:
            found = json.loads(text)
            return cls(**_read_fields(found))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"This is not a report in JSON: {error!r}") from error

    def __str__(self) -> str:
        parts = [self.model, _phase_table(self), _last_epoch(self)]
        parts += [
            f"{name}: {tables.evaluation_line(evaluation)}"
            for name, evaluation in self.evaluations.items()
        ]
        if self.skipped:
            parts.append(f"skipped {len(self.skipped):,} examples, see report.skipped")
        parts.append(f"{self.seconds:,.1f} s in all")
        return "\n".join(part for part in parts if part)


def versions() -> dict[str, str]:
    """The versions of what a run depends on; "unknown" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in ("tlkit", "tensorflow", "keras"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _read_fields(found: dict) -> dict:
    """The arguments of `Report` out of its JSON object."""
    return {
        **found,
        "history": {
            name: [strict_json.number(value) for value in values]
            for name, values in found["history"].items()
        },
        "phases": tuple(_read_phase(phase) for phase in found["phases"]),
        "seconds": strict_json.number(found["seconds"]),
        "evaluations": {
            name: read_evaluation(value) for name, value in found["evaluations"].items()
        },
        "skipped": tuple(Skipped(**entry) for entry in found["skipped"]),
    }


def _read_phase(found: dict) -> PhaseReport:
    numbers = {
        name: strict_json.number(found[name])
        for name in ("train_seconds", "learning_rate")
    }
    return PhaseReport(**{**found, **numbers, "blocks": tuple(found["blocks"])})


def _phase_table(report: Report) -> str:
    if not report.phases:
        return ""
    rows = [
        (
            tables.cut(phase.name),
            tables.cut(", ".join(phase.blocks) or "none, only the head", 40),
            f"{phase.epochs:,}",
            f"{phase.parameters_trained:,}",
            f"{phase.learning_rate:.2g}",
            f"{phase.train_seconds:,.1f}",
        )
        for phase in report.phases
    ]
    header = ("phase", "blocks", "epochs", "parameters", "learning rate", "seconds")
    return tables.table(header, rows, left=2)


def _last_epoch(report: Report) -> str:
    figures = [
        f"{name} {values[-1]:.4f}" for name, values in report.history.items() if values
    ]
    if not figures:
        return ""
    epochs = max(len(values) for values in report.history.values())
    return f"after {epochs:,} epochs: {', '.join(figures)}"
