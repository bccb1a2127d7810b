"""Writes a run's folder and makes its report.

Tested in tests/training/test_fitting.py.
"""

import contextlib
import itertools
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import keras

from .. import models, reports
from ..data import Skipped
from ..encoders import find_encoder
from ..errors import TrainingError
from ..files import atomic_file
from .loop.run import PhaseResult, Run
from .plans.plan import PhasePlan, Plan

PLAN_FILE = "plan.txt"


def make_folder(folder: pathlib.Path | None) -> pathlib.Path | None:
    """Creates the run's folder, if there is one, before any compute is spent.

    Raises:
        TrainingError: The folder cannot be written.
    """
    if folder is None:
        return None
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    return folder


def write_plan(folder: pathlib.Path, plan: Plan) -> None:
    """Writes the plan into the run's folder.

    Raises:
        TrainingError: The folder cannot be written.
    """
    with _writing(folder):
        with atomic_file(folder / PLAN_FILE) as temporary:
            temporary.write_text(f"{plan}\n", encoding="utf-8")


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"The run's folder {folder} cannot be written: {error.strerror}. Give "
            "another directory=…"
        ) from error


def make_report(
    run: Run,
    plan: Plan,
    *,
    evaluations: Mapping[str, reports.Evaluation],
    skipped: Sequence[Skipped],
    seed: int,
    seconds: float,
) -> reports.Report:
    """Makes the report that `fit` returns, from a finished run."""
    phases = list(zip(plan.phases, run.results, strict=True))
    checks = [
        f"{i}. {planned.phase.title}: {result.frozen_check}."
        for i, (planned, result) in enumerate(phases, start=1)
    ]
    first_epochs = itertools.accumulate((r.epochs for r in run.results), initial=0)
    return reports.Report(
        history=run.history,
        phases=tuple(
            _phase_report(plan, planned, result, first_epoch)
            for (planned, result), first_epoch in zip(
                phases, first_epochs, strict=False
            )
        ),
        seconds=seconds,
        evaluations=evaluations,
        skipped=tuple(skipped),
        model=_describe(run.model),
        plan="\n".join([str(plan), *checks]),
        seed=seed,
    )


def _phase_report(
    plan: Plan, planned: PhasePlan, result: PhaseResult, first_epoch: int
) -> reports.PhaseReport:
    fractions = zip(plan.blocks, planned.blocks, strict=True)
    trained = [name for name, fraction in fractions if fraction and name != "head"]
    return reports.PhaseReport(
        name=planned.phase.title,
        epochs=result.epochs,
        first_epoch=first_epoch,
        train_seconds=result.seconds,
        blocks=tuple(trained),
        parameters_trained=planned.parameters,
        learning_rate=planned.phase.learning_rate,
    )


def _describe(model: keras.Model) -> str:
    encoder, task = find_encoder(model), models.task_of(model)
    text = f"{model.name}: {model.count_params():,} parameters"
    if encoder is not None:
        text += f", encoder {encoder.facts.name or encoder.name}"
    return text + (f", {len(task.labels):,} labels" if task is not None else "")
