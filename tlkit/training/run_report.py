"""What `fit` leaves behind: the run's folder and the report."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import keras

from .. import models, reports
from ..data import Skipped
from ..encoders import find_encoder
from ..errors import TrainingError
from .loop.run import PhaseResult, Run
from .plans.plan import PhasePlan, Plan

PLAN_FILE = "plan.txt"


def make_folder(directory: str | os.PathLike | None) -> pathlib.Path | None:
    """Makes the run's folder, before anything is spent.

    Raises:
        TrainingError: It cannot be written.
    """
    if directory is None:
        return None
    folder = pathlib.Path(directory).expanduser()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    return folder


def write_plan(folder: pathlib.Path, plan: Plan) -> None:
    """Writes the plan into the run's folder.

    Raises:
        TrainingError: It cannot be written.
    """
    with _writing(folder):
        beside = folder / f".{PLAN_FILE}.{os.getpid()}"
        beside.write_text(f"{plan}\n", encoding="utf-8")
        os.replace(beside, folder / PLAN_FILE)


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
    """What `fit` gives back, of what came out of it."""
    results = run.results
    proofs = [
        f"{i}. {planned.phase.title}: {result.proof}."
        for i, (planned, result) in enumerate(
            zip(plan.phases, results, strict=True), start=1
        )
    ]
    return reports.Report(
        history=run.history,
        phases=tuple(
            _phase_report(plan, planned, result, first)
            for planned, result, first in zip(
                plan.phases, results, _firsts(results), strict=True
            )
        ),
        seconds=seconds,
        evaluations=evaluations,
        skipped=tuple(skipped),
        model=_describe(run.model),
        plan="\n".join([str(plan), *proofs]),
        seed=seed,
    )


def _firsts(results: Sequence[PhaseResult]) -> list[int]:
    return [sum(result.epochs for result in results[:i]) for i in range(len(results))]


def _phase_report(
    plan: Plan, planned: PhasePlan, result: PhaseResult, first: int
) -> reports.PhaseReport:
    trained = zip(plan.blocks, planned.blocks, strict=True)
    return reports.PhaseReport(
        name=planned.phase.title,
        epochs=result.epochs,
        first_epoch=first,
        train_seconds=result.seconds,
        blocks=tuple(name for name, share in trained if share and name != "head"),
        parameters_trained=planned.parameters,
        learning_rate=planned.phase.learning_rate,
    )


def _describe(model: keras.Model) -> str:
    encoder, task = find_encoder(model), models.task_of(model)
    text = f"{model.name}: {model.count_params():,} parameters"
    if encoder is not None:
        text += f", encoder {encoder.details.get('name', encoder.name)}"
    return text + (f", {len(task.labels):,} labels" if task is not None else "")
