"""The result of `tlkit.fit`, and its file `report.json`."""

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
from ..files import atomic_file, strict_json, user_path
from . import tables
from .evaluation_result import Evaluation, read_evaluation

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class PhaseReport:
    """The result of one phase.

    Attributes:
        name: The name of the phase.
        epochs: The number of epochs.
        first_epoch: The index of its first epoch in the history.
        train_seconds: The duration of the phase, in seconds.
        blocks: The names of the encoder's trained blocks.
        parameters_trained: The number of trained parameters, including the head's.
        learning_rate: The peak learning rate of the phase.
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
    """The result of `tlkit.fit`, and the quality of the model.

    Attributes:
        history: The loss and metrics of every epoch, over all phases, by Keras's names:
            `"loss"`, `"accuracy"`, `"val_loss"`, `"val_accuracy"`, ….
        phases: The result of each phase.
        seconds: The duration of the run, in seconds.
        evaluations: The evaluation of the final model, by the name of the split.
        skipped: The examples that were left out of the data, and the reasons.
        model: A description of the model, in a few lines.
        plan: The blocks that each phase trained, as text in the form of `tlkit.plan`.
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
        """Writes `report.json` into a folder, which is created if it is missing.

        Args:
            directory: The folder of the run.

        Returns:
            The path of the file. It replaces an older report.

        Raises:
            DataError: The file cannot be written. An older report stays as it was.
        """
        path = user_path(directory) / REPORT_FILE
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
        """Reads a report that `save` wrote.

        Args:
            path: The folder of a run, or its `report.json`.

        Raises:
            DataError: The file does not exist or is not a report.
        """
        file = user_path(path)
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
        """Returns a JSON object as text; a number that is not finite becomes `null`."""
        return strict_json.dump(self)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Reads the result of `to_json`.

        Raises:
            DataError: The text is not the JSON of a report.
        """
        try:
            return cls(**_read_fields(json.loads(text)))
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
    """Returns the versions of Python, tlkit, TensorFlow and Keras, or "unknown"."""
    versions = {"python": platform.python_version()}
    for name in ("tlkit", "tensorflow", "keras"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _read_fields(entry: dict) -> dict:
    """Converts the JSON object of a report to the arguments of `Report`."""
    return {
        **entry,
        "history": {
            name: [strict_json.number(value) for value in values]
            for name, values in entry["history"].items()
        },
        "phases": tuple(_read_phase(phase) for phase in entry["phases"]),
        "seconds": strict_json.number(entry["seconds"]),
        "evaluations": {
            name: read_evaluation(value) for name, value in entry["evaluations"].items()
        },
        "skipped": tuple(Skipped(**skipped) for skipped in entry["skipped"]),
    }


def _read_phase(entry: dict) -> PhaseReport:
    numbers = {
        name: strict_json.number(entry[name])
        for name in ("train_seconds", "learning_rate")
    }
    return PhaseReport(**{**entry, **numbers, "blocks": tuple(entry["blocks"])})


def _phase_table(report: Report) -> str:
    if not report.phases:
        return ""
    rows = [
        (
            tables.shorten(phase.name),
            tables.shorten(", ".join(phase.blocks) or "none, only the head", 40),
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
    metrics = [
        f"{name} {values[-1]:.4f}" for name, values in report.history.items() if values
    ]
    if not metrics:
        return ""
    epochs = max(len(values) for values in report.history.values())
    return f"after {epochs:,} epochs: {', '.join(metrics)}"
