"""When a run writes a checkpoint, and how it goes on from one."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import TrainingError
from ..loop.display import say
from ..loop.frozen_check import Before, Proof
from ..loop.patience import Patience
from ..loop.run import PhaseResult, Position, Run
from ..plans.trainable_selection import Choice
from ..strategies.workers import any_of_each
from . import checkpoint_files as checkpoints
from . import snapshot as snapshots
from .callback_states import CallbackStates
from .fingerprint import check_same


@dataclasses.dataclass(frozen=True)
class Rules:
    """When to write checkpoints, and how many to keep.

    Attributes:
        directory: The run's folder; `None` for no checkpoints.
        steps: Updates between two, or `None`.
        minutes: Minutes between two, or `None`.
        keep: How many of the last are kept.
    """

    directory: str | os.PathLike | None
    steps: int | None = None
    minutes: float | None = None
    keep: int = 2


class Saver:
    """Writes a run's checkpoints, and puts the last one back.

    Args:
        run: The run.
        rules: When to write.
        facts: What the job is, as `fingerprints` says it.
        phases: How many phases the run has.
    """

    def __init__(self, run: Run, rules: Rules, facts: Mapping[str, Any], phases: int):
        self.run, self.rules, self.facts, self.phases = run, rules, facts, phases
        self.seconds_before = 0.0  # of this phase, before the run was resumed
        self._began_run = self._began_phase = self._saved_at = time.monotonic()
        self._saves = self._updates = 0
        self._patience: Patience | None = None
        self._merge: Callable[[], None] = lambda: None
        self._resumed: checkpoints.Saved | None = None
        self._callbacks = CallbackStates(run.callbacks.callbacks)

    # === While it runs ===

    def begin_phase(
        self, choice: Choice, patience: Patience, merge: Callable[[], None]
    ) -> None:
        """Takes note of a phase; a resumed one gets its patience back.

        Args:
            choice: What it trains.
            patience: Its patience.
            merge: Makes one of what each replica keeps for itself.
        """
        self._patience, self._merge = patience, merge
        self._began_phase, self.seconds_before = time.monotonic(), 0.0
        self._updates = self.run.position.updates
        saved, self._resumed = self._resumed, None
        if saved is None:
            return
        state = saved.state
        if state["before"] is not None:
            self.run.before = Before(choice, *map(tuple, state["before"]))
            patience.set_state(_under("patience/", saved.arrays), state["patience"])
            self.seconds_before = state["phase_seconds"]

    def save_if_due(self) -> None:
        """Writes one if it is time; and does so and leaves after a signal.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process was asked to end.
        """
        strategy = self.run.setting.strategy
        flags = [self.run.interrupts.received is not None, self._is_due()]
        interrupted, due = any_of_each(strategy, flags)
        if interrupted or due:
            self.save()
        if interrupted:
            self.run.interrupts.leave()

    def leave_if_asked(self) -> None:
        """Leaves after a signal, with nothing to be saved.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process was asked to end.
        """
        received = self.run.interrupts.received is not None
        if any_of_each(self.run.setting.strategy, [received])[0]:
            self.run.interrupts.leave()

    def _is_due(self) -> bool:
        rules = self.rules
        updates = self.run.position.updates - self._updates
        if rules.directory is None or not self.run.chief:
            return False
        by_steps = rules.steps is not None and updates >= rules.steps
        passed = time.monotonic() - self._saved_at
        return by_steps or (rules.minutes is not None and passed >= rules.minutes * 60)

    def save(self, *, between_phases: bool = False) -> None:
        """Writes a checkpoint now; all workers call it, and one writes.

        Raises:
            TrainingError: It cannot be written; the ones before it stay.
        """
        if self.rules.directory is None:
            return
        arrays, state = self._take(between_phases)
        self._saves += 1
        self._saved_at, self._updates = time.monotonic(), self.run.position.updates
        if self.run.chief:
            checkpoints.write(
                self.rules.directory,
                self._saves,
                arrays,
                state | {"saves": self._saves},
                keep=self.rules.keep,
            )

    def _take(self, between_phases: bool):
        run, now = self.run, time.monotonic()
        self._merge()
        meters = run.setting.meters
        arrays, state = snapshots.take(
            run.model, run.setting.optimizer, meters.all, self._callbacks
        )
        for i, variable in enumerate(run.averages.variables):
            average = run.averages.by_id[id(variable)]
            arrays[f"averages/{i}"] = np.array(keras.ops.convert_to_numpy(average))
        weights = {id(v): i for i, v in enumerate(run.model.weights)}
        for key, value in run.published.items():
            arrays[f"published/{weights[key]}"] = value.numpy()
        before, patience = None, {}
        if not between_phases:
            kept, patience = self._patience.state()
            arrays |= {f"patience/{name}": value for name, value in kept.items()}
            before = [run.before.trained, run.before.frozen]
        own = {
            "position": dataclasses.asdict(run.position),
            "factor": run.rate.factor,
            "results": [dataclasses.asdict(result) for result in run.results],
            "before": before,
            "patience": patience,
            "phase_seconds": self.seconds_before + now - self._began_phase,
            "seconds": run.seconds + now - self._began_run,
            "facts": self.facts,
            "finished": run.position.phase >= self.phases,
        }
        return arrays, {"snapshot": state} | own

    # === Going on ===

    def find(self) -> None:
        """Looks for the last checkpoint, before callbacks begin.

        Raises:
            TrainingError: It is of another job, or none of them can be read.
        """
        self._resumed = checkpoints.latest(self.rules.directory)
        if self._resumed is not None:
            check_same(self._resumed.state["facts"], self.facts)
            self._callbacks.append_to_files()

    def resume(self) -> None:
        """Puts back what was found, if anything was, after callbacks have begun.

        Raises:
            TrainingError: It does not fit the model or the optimizer.
        """
        saved = self._resumed
        if saved is None:
            return
        run, state = self.run, saved.state
        snapshots.put_back(
            saved.arrays,
            state["snapshot"],
            model=run.model,
            optimizer=run.setting.optimizer,
            metrics=run.setting.meters.all,
            callbacks=self._callbacks,
        )
        for i, variable in enumerate(run.averages.variables):
            run.averages.by_id[id(variable)].assign(saved.arrays[f"averages/{i}"])
        weights = run.model.weights
        for place, value in _under("published/", saved.arrays).items():
            run.published[id(weights[int(place)])] = tf.constant(value)
        run.position = Position(**state["position"])
        run.rate.factor = state["factor"]
        run.results = [_result(**result) for result in state["results"]]
        run.seconds = state["seconds"]
        self._saves = state["saves"]
        if run.verbose:
            done = run.position
            say(
                f"Going on from {saved.path}: phase {done.phase + 1}, step "
                f"{done.updates:,}, epoch {done.epoch + 1}."
            )


def check_rules(rules: Rules, *, resume: bool) -> None:
    """Refuses rules that make no sense, and to begin where an unfinished run lies.

    Raises:
        TrainingError: A number is out of range, or an unfinished run would be lost.
    """
    for name, value in (
        ("checkpoint_steps", rules.steps),
        ("checkpoint_keep", rules.keep),
    ):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise TrainingError(
                f"{name} must be an integer of 1 or more; got {value!r}."
            )
    if rules.minutes is not None and not rules.minutes > 0:
        raise TrainingError(
            f"checkpoint_minutes must be above 0, or None; got {rules.minutes!r}."
        )
    if rules.directory is None:
        if resume or rules.steps is not None:
            raise TrainingError("Checkpoints need the run's folder: give directory=…")
        return
    saved = None if resume else checkpoints.latest(rules.directory)
    if saved is not None and not saved.state["finished"]:
        place = saved.state["position"]
        raise TrainingError(
            f"{rules.directory} holds a checkpoint of a run that did not end (phase "
            f"{place['phase'] + 1}, step {place['updates']:,}). Type resume=True to go "
            f"on with it, or delete {saved.path.parent} to begin anew."
        )


def check_same_everywhere(
    strategy: tf.distribute.Strategy, directory: str | os.PathLike | None
) -> None:
    """Sees that all workers save, or none: they gather together what is saved.

    Raises:
        TrainingError: Some have a directory, and some have none.
    """
    flags = [directory is None, directory is not None]
    if all(any_of_each(strategy, flags)):
        raise TrainingError(
            "Some workers were given a directory and some none. Give all of them the "
            "same; only the chief writes to it."
        )


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
    }


def _result(proof: Mapping[str, Any], epochs: int, seconds: float) -> PhaseResult:
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in proof.items()}
    return PhaseResult(Proof(**tuples), epochs, seconds)
