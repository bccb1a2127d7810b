"""What a job is, so that a checkpoint is not resumed by another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ...errors import TrainingError
from ..feeds.feed import Feed
from ..plans.schedules import Phase
from .job_facts import (
    data_differences,
    data_facts,
    loss_facts,
    model_facts,
    optimizer_facts,
)

_SAID = 10  # differences that a message names before it only counts


def fingerprint(
    model: keras.Model,
    phases: Sequence[Phase],
    train: Feed,
    *,
    optimizer: keras.optimizers.Optimizer,
    loss: Any,
    seed: int,
    batch_size: int,
    class_weight: Mapping[int | str, float] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Facts about a job that decide what comes out of it.

    The strategy is none of them: a run may go on elsewhere. Nor are the metrics, the
    callbacks and the validation data.

    Args:
        model: The model, built.
        phases: The schedule.
        train: The examples to train on.
        optimizer: The optimizer, with the settings that it begins with.
        loss: A Keras loss, a function or a name.
        seed: That of the run.
        batch_size: Examples in a batch.
        class_weight: Weights of the classes, or `None`.
        **others: Further settings of the run, such as `gradient_accumulation_steps`;
            plain values.

    Returns:
        The facts, as plain values for `state` of a checkpoint.
    """
    return {
        "schedule": [_phase_facts(phase) for phase in phases],
        "model": model_facts(model),
        "data": data_facts(train, batch_size=batch_size, weights=not class_weight),
        "seed": int(seed),
        "optimizer": optimizer_facts(optimizer),
        "loss": loss_facts(loss),
        "class_weight": {str(k): float(w) for k, w in (class_weight or {}).items()},
    } | others


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Sees that a checkpoint is of the job that is to be resumed.

    Args:
        saved: What `fingerprint` gave when the checkpoint was written.
        now: What it gives now.

    Raises:
        TrainingError: Something differs.
    """
    found = differences(saved, now)
    if found:
        more = f"\n  … and {len(found) - _SAID:,} more" if len(found) > _SAID else ""
        raise TrainingError(
            "The checkpoint is of another job, and stays as it is:\n  "
            + "\n  ".join(found[:_SAID])
            + more
            + "\nType these as they were to go on from it. To begin anew, give another "
            "directory, or delete the folder `checkpoints` in this one."
        )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sentences that name what differs between two jobs.

    What only one of them says is passed over: it may come from another version.

    Args:
        saved: What `fingerprint` gave when the checkpoint was written.
        now: What it gives now.

    Returns:
        Sentences such as `"schedule: phase 2 had epochs=3, now 5"`.
    """
    found = []
    for key in (key for key in saved if key in now):
        before, after = saved[key], now[key]
        if key == "schedule":
            found += _schedule_differences(before, after)
        elif key == "model":
            found += _model_differences(before, after)
        elif key == "data":
            same_order = saved["seed"] == now["seed"]
            found += data_differences(before, after, same_order=same_order)
        elif key in ("optimizer", "loss"):
            found += _made_differently(key, before, after)
        elif before != after:
            found.append(f"{key} was {before!r}, now {after!r}")
    return found


def _phase_facts(phase: Phase) -> dict[str, Any]:
    facts = {f.name: getattr(phase, f.name) for f in dataclasses.fields(phase)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}


def _schedule_differences(saved: list[dict], now: list[dict]) -> list[str]:
    if len(saved) != len(now):
        return [f"schedule: it had {len(saved)} phases, now {len(now)}"]
    return [
        f"schedule: phase {number} had {key}={before[key]!r}, now {after[key]!r}"
        for number, (before, after) in enumerate(zip(saved, now, strict=True), start=1)
        for key in before
        if key in after and before[key] != after[key]
    ]


def _model_differences(saved: dict, now: dict) -> list[str]:
    old, new = saved["weights"], now["weights"]
    found = [f"model: {name} is not there any more" for name in old if name not in new]
    found += [f"model: {name} was not there before" for name in new if name not in old]
    found += [
        f"model: {name} was {old[name]}, now {new[name]}"
        for name in old
        if name in new and old[name] != new[name]
    ]
    before, after = saved["layers"], now["layers"]
    if len(before) != len(after):
        return [*found, f"model: it had {len(before)} layers, now {len(after)}"]
    for number, pair in enumerate(zip(before, after, strict=True), start=1):
        name = f"model: layer {number} ({pair[0]['class']})"
        found += _made_differently(name, *pair)
    return found


def _made_differently(name: str, saved: dict, now: dict) -> list[str]:
    """What differs between two things of Keras, by class and settings."""
    if saved["class"] != now["class"]:
        return [f"{name} was {saved['class']}, now {now['class']}"]
    return [
        f"{name} had {key}={saved[key]!r}, now {now[key]!r}"
        for key in saved
        if key in now and saved[key] != now[key]
    ]
