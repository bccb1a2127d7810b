"""Decides when a run writes a checkpoint, and resumes it from the last one.

Tested in tests/training/checkpoints/test_resuming.py.
"""

import contextlib
import dataclasses
import numbers
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..loop.display import print_line
from ..loop.frozen_check import WeightChecksums
from ..loop.patience import Patience
from ..loop.run import PhaseResult, Position, Run
from ..plans.plan import PhasePlan
from ..strategies.workers import any_worker_each, worker_count
from . import checkpoint_files
from .callback_states import CallbackStates
from .fingerprint import check_same, lengthened
from .snapshot import (
    averages_by_name,
    restore_averages,
    restore_published,
    restore_snapshot,
    take_snapshot,
)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """When `fit` writes checkpoints into its `directory`, and how many it keeps.

    A checkpoint is also written after each phase, and after Ctrl-C or SIGTERM.

    Attributes:
        steps: Updates between two checkpoints, at least 1, or `None`.
        minutes: Minutes between two checkpoints, above 0, or `None`.
        keep: The number of latest checkpoints that are kept, at least 1.

    Raises:
        TrainingError: A value is out of its range.

    Example:

    ```python
    checkpoints = tlkit.Checkpoints(steps=500, keep=3)
    checkpoints  # Checkpoints(steps=500, minutes=10.0, keep=3)
    report = tlkit.fit(model, splits, directory="runs/1", checkpoints=checkpoints)
    ```
    """

    steps: int | None = None
    minutes: float | None = 10.0
    keep: int = 2

    def __post_init__(self):
        for name in ("steps", "keep"):
            value = getattr(self, name)
            if value is None and name == "steps":
                continue
            if not isinstance(value, numbers.Integral) or value < 1:
                raise TrainingError(
                    f"{name} of Checkpoints must be an integer of 1 or more; got "
                    f"{value!r}."
                )
        if self.minutes is not None and not self.minutes > 0:
            raise TrainingError(
                "minutes of Checkpoints must be above 0, or None; got "
                f"{self.minutes!r}."
            )


class Saver:
    """Writes the checkpoints of a run, and restores the last one.

    Args:
        run: The run.
        directory: The run's folder; `None` for no checkpoints.
        checkpoints: When to write.
        facts: The `fingerprint` of the job.
        phases: The number of phases.

    Attributes:
        seconds_before: Seconds that a resumed phase took before the run was stopped.
    """

    def __init__(
        self,
        run: Run,
        directory: str | os.PathLike | None,
        checkpoints: Checkpoints,
        facts: Mapping[str, Any],
        phases: int,
    ):
        self.run, self.directory, self.checkpoints = run, directory, checkpoints
        self.facts, self.phases = facts, phases
        self.seconds_before = self._seconds_reopened = 0.0
        self._run_start = self._phase_start = self._last_save = time.monotonic()
        self._saves = self._saved_updates = 0
        self._saved_position: Position | None = None
        self._patience: Patience | None = None
        self._merge_replicas: Callable[[], None] = lambda: None
        self._resumed: checkpoint_files.Checkpoint | None = None
        self._callbacks = CallbackStates(run.callbacks.callbacks)

    # === Resuming ===

    def check(self, checkpoint: checkpoint_files.Checkpoint) -> None:
        """Verifies and stores a checkpoint for `resume`; before `on_train_begin`.

        Raises:
            TrainingError: It belongs to another job.
        """
        self._resumed, state = checkpoint, checkpoint.state
        position = Position(**state["position"])
        begun = position.phase + position.is_in_phase
        check_same(state["facts"], self.facts, begun=begun)
        self._callbacks.append_to_files()

    def resume(self) -> None:
        """Restores the checkpoint that `check` stored; after `on_train_begin`.

        Raises:
            TrainingError: It does not fit the model or the optimizer.
        """
        checkpoint = self._resumed
        if checkpoint is None:
            return
        run, state, arrays = self.run, checkpoint.state, checkpoint.arrays
        restore_snapshot(
            arrays,
            state["snapshot"],
            model=run.model,
            optimizer=run.settings.optimizer,
            metrics=run.settings.metrics.all,
            callbacks=self._callbacks,
        )
        restore_averages(run.averages, arrays, run.model)
        restore_published(run.pretrained, arrays, run.model)
        run.position = Position(**state["position"])
        run.learning_rate.set_state(state)
        run.results = [PhaseResult.from_state(one) for one in state["results"]]
        run.seconds = state["seconds"]
        self._saves = state["saves"]
        self._reopen_phase(state)
        self._saved_position = dataclasses.replace(run.position)
        if run.verbose:
            position = run.position
            print_line(
                f"Resuming from {checkpoint.path}: phase {position.phase + 1}, step "
                f"{position.updates:,}, epoch {position.epoch + 1}."
            )

    def _reopen_phase(self, state: Mapping[str, Any]) -> None:
        """Continues the last completed phase if its length has been increased since.

        A phase that ended early, since it stopped improving, is not continued.

        Raises:
            TrainingError: The checkpoint does not say at which update the phase ended.
        """
        run, saved = self.run, state["facts"]
        last = run.position.phase - 1
        if run.position.is_in_phase or last < 0 or last >= self.phases:
            return
        if not lengthened(saved, self.facts, last):
            return
        result, phase = run.results[last], saved["schedule"][last]
        if result.updates is None:
            raise TrainingError(
                f"Phase {last + 1} cannot be made longer, since an earlier version of "
                "tlkit wrote the checkpoint. Add a phase instead."
            )
        if result.epochs < (phase["epochs"] or 0) or result.updates < (
            phase["steps"] or 0
        ):
            return
        run.position.phase, run.position.updates = last, result.updates
        run.position.phase_epochs = result.epochs
        run.results.pop()
        self._seconds_reopened = result.seconds

    def begin_phase(
        self,
        planned: PhasePlan,
        patience: Patience,
        merge_replicas: Callable[[], None],
    ) -> None:
        """Stores the objects of a phase that its checkpoints need.

        In a resumed phase, restores its patience and its checksums.
        `merge_replicas` averages the variables that differ between replicas.
        """
        self._patience, self._merge_replicas = patience, merge_replicas
        self._phase_start = time.monotonic()
        self.seconds_before, self._seconds_reopened = self._seconds_reopened, 0.0
        self._saved_updates = self.run.position.updates
        checkpoint, self._resumed = self._resumed, None
        if checkpoint is None or checkpoint.state["before"] is None:
            return
        state, model = checkpoint.state, self.run.model
        self.run.checksums = WeightChecksums(
            planned.trained_weights(model),
            planned.frozen_weights(model),
            tuple(map(tuple, state["before"])),
        )
        weights = _with_prefix("patience/", checkpoint.arrays)
        patience.set_state(weights, state["patience"])
        self.seconds_before = state["phase_seconds"]

    # === Saving ===

    def save_if_due(self) -> None:
        """Writes a checkpoint if it is time to; after a signal, also ends the run.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process received SIGTERM.
        """
        interrupts = self.run.interrupts
        flags = [interrupts.received is not None, self._is_due()]
        interrupted, due = any_worker_each(self.run.settings.strategy, flags)
        if interrupted or due:
            self.save()
        if interrupted:
            interrupts.raise_received()

    @contextlib.contextmanager
    def saving_if_interrupted(self) -> Iterator[None]:
        """Writes a checkpoint if a signal ends the context.

        The code in the context must not change the run. With several workers, nothing
        is written, since a snapshot needs all of them: the run then resumes from its
        last checkpoint.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            is_saved = self._saved_position == self.run.position
            alone = worker_count(self.run.settings.strategy) == 1
            if self.run.interrupts.received is not None and alone and not is_saved:
                self.save(between_phases=True)
            raise

    def leave_if_interrupted(self) -> None:
        """Ends the run after a signal, without writing a checkpoint.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process received SIGTERM.
        """
        received = self.run.interrupts.received is not None
        if any_worker_each(self.run.settings.strategy, [received])[0]:
            self.run.interrupts.raise_received()

    def save(self, *, between_phases: bool = False) -> None:
        """Writes a checkpoint now. All workers must call it; only the chief writes.

        Raises:
            TrainingError: It cannot be written. Earlier checkpoints are unchanged.
        """
        if self.directory is None:
            return
        arrays, state = self._snapshot(between_phases)
        self._saves += 1
        self._last_save = time.monotonic()
        self._saved_updates = self.run.position.updates
        self._saved_position = dataclasses.replace(self.run.position)
        if self.run.chief:
            checkpoint_files.write(
                self.directory,
                self._saves,
                arrays,
                state | {"saves": self._saves},
                keep=self.checkpoints.keep,
            )

    def _is_due(self) -> bool:
        if self.directory is None or not self.run.chief:
            return False
        steps, minutes = self.checkpoints.steps, self.checkpoints.minutes
        updates = self.run.position.updates - self._saved_updates
        seconds = time.monotonic() - self._last_save
        by_steps = steps is not None and updates >= steps
        return by_steps or (minutes is not None and seconds >= minutes * 60)

    def _snapshot(self, between_phases: bool):
        run, now = self.run, time.monotonic()
        self._merge_replicas()
        arrays, state = take_snapshot(
            run.model,
            run.settings.optimizer,
            run.settings.metrics.all,
            self._callbacks,
        )
        arrays |= averages_by_name(run.averages, run.model)
        indices = {id(v): i for i, v in enumerate(run.model.weights)}
        for key, value in run.pretrained.items():
            arrays[f"published/{indices[key]}"] = value.numpy()
        checksums, patience = None, {}
        if not between_phases:
            weights, patience = self._patience.state()
            arrays |= {f"patience/{name}": value for name, value in weights.items()}
            checksums = list(run.checksums.values)
        return arrays, {
            "snapshot": state,
            "position": dataclasses.asdict(run.position),
            **run.learning_rate.state(),
            "results": [result.state() for result in run.results],
            "before": checksums,
            "patience": patience,
            "phase_seconds": self.seconds_before + now - self._phase_start,
            "seconds": run.seconds + now - self._run_start,
            "facts": self.facts,
            "finished": run.position.phase >= self.phases,
        }


def check_directory(
    directory: str | os.PathLike | None, checkpoints: Checkpoints, *, resume: bool
) -> None:
    """Rejects a directory that is missing, or that holds an unfinished run.

    Raises:
        TrainingError: A directory is needed, or an unfinished run would be lost.
    """
    if not isinstance(checkpoints, Checkpoints):
        raise TrainingError(
            f"checkpoints must be a tlkit.Checkpoints; got {checkpoints!r}. Type "
            "checkpoints=tlkit.Checkpoints(steps=500)."
        )
    if directory is None:
        if resume or checkpoints != Checkpoints():
            raise TrainingError("Checkpoints need the run's folder: give directory=…")
        return
    checkpoint = None if resume else checkpoint_files.latest(directory)
    if checkpoint is not None and not checkpoint.state["finished"]:
        position = checkpoint.state["position"]
        raise TrainingError(
            f"{directory} contains a checkpoint of an unfinished run (phase "
            f"{position['phase'] + 1}, step {position['updates']:,}). Type resume=True "
            f"to resume it, or delete {checkpoint.path.parent} to start over."
        )


def check_same_everywhere(
    strategy: tf.distribute.Strategy, directory: str | os.PathLike | None
) -> None:
    """Verifies that all workers have a directory, or none: a snapshot needs all.

    Raises:
        TrainingError: Some workers have a directory, and some have none.
    """
    flags = [directory is None, directory is not None]
    if all(any_worker_each(strategy, flags)):
        raise TrainingError(
            "Some workers were given a directory and some none. Give all of them the "
            "same; only the chief writes to it."
        )


def _with_prefix(
    prefix: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin with a prefix, by names without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
