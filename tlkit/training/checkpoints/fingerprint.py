"""The fingerprint of a job: a checkpoint is only resumed by the job that wrote it."""

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

_LISTED = 10  # differences listed in an error message; the others are only counted


def fingerprint(
    model: keras.Model,
    phases: Sequence[Phase],
    train: Feed,
    *,
    optimizer: keras.optimizers.Optimizer,
    loss: Any,
    seed: int,
    batch_size: int,
    class_weight: Mapping[int | str, float] | str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Returns the facts about a job that its result depends on.

    They do not include the strategy, since a run may be resumed on other devices, nor
    the metrics, the callbacks and the validation data.

    Args:
        model: The model, built.
        phases: The schedule.
        train: The training examples.
        optimizer: The optimizer, with its initial settings.
        loss: A Keras loss, a function or a name.
        seed, batch_size, class_weight: As for `fit`.
        **others: More settings of `fit`, as plain values.

    Returns:
        The facts, as plain values for the `state` of a checkpoint.
    """
    return {
        "schedule": [_phase_facts(phase) for phase in phases],
        "model": model_facts(model),
        "data": data_facts(train, batch_size=batch_size, weights=not class_weight),
        "seed": int(seed),
        "optimizer": optimizer_facts(optimizer),
        "loss": loss_facts(loss),
        "class_weight": class_weight
        if isinstance(class_weight, str)
        else {str(k): float(w) for k, w in (class_weight or {}).items()},
    } | others


def check_same(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, begun: int | None = None
) -> None:
    """Verifies that a checkpoint belongs to the job that is to be resumed.

    Args:
        saved, now, begun: As for `differences`.

    Raises:
        TrainingError: The fingerprints differ.
    """
    if sentences := differences(saved, now, begun=begun):
        raise mismatch_error("The checkpoint belongs to another job", sentences)


def mismatch_error(title: str, sentences: Sequence[str]) -> TrainingError:
    """Returns an error that lists what differs from a checkpoint, and what to do."""
    hidden = len(sentences) - _LISTED
    more = [f"… and {hidden:,} more"] if hidden > 0 else []
    return TrainingError(
        f"{title}, and is not changed:\n  "
        + "\n  ".join([*sentences[:_LISTED], *more])
        + "\nUndo these changes to resume it. To start over, give another directory, "
        "or delete the folder `checkpoints` in this one."
    )


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, begun: int | None = None
) -> list[str]:
    """Returns sentences that name the differences between two jobs.

    Facts in only one of them are ignored: another version of tlkit may have added or
    dropped them.

    Args:
        saved: The fingerprint in the checkpoint.
        now: The fingerprint of the present job.
        begun: The number of phases that have begun; by default all. The last of them
            may be longer now. Phases after them may differ, or be added.

    Returns:
        Sentences such as `"schedule: phase 2 had epochs=3, now 5"`.
    """
    sentences = []
    for key in (key for key in saved if key in now):
        before, after = saved[key], now[key]
        if key == "schedule":
            if begun is not None and len(after) >= len(before):
                before, after = before[:begun], _without_extension(before, after, begun)
            sentences += _list_differences("schedule", "phase", before, after)
        elif key == "model":
            sentences += _weight_differences(before["weights"], after["weights"])
            layers = before["layers"], after["layers"]
            sentences += _list_differences("model", "layer", *layers)
        elif key == "data":
            same_order = saved["seed"] == now["seed"]
            sentences += data_differences(before, after, same_order=same_order)
        elif key in ("optimizer", "loss"):
            facts = map(_without_inner_rate, (before, after))
            sentences += _setting_differences(key, *facts)
        elif before != after:
            sentences.append(f"{key} was {before!r}, now {after!r}")
    return sentences


def lengthened(saved: Mapping[str, Any], now: Mapping[str, Any], phase: int) -> bool:
    """Returns whether a phase has more epochs or steps than in a checkpoint.

    Args:
        saved, now: The fingerprints.
        phase: The index of the phase.
    """
    before, after = saved["schedule"][phase], now["schedule"][phase]
    return bool(_longer(before, after))


def _longer(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, int]:
    """Returns the saved `epochs` or `steps` of a phase that has more of them now."""
    return {
        key: before[key]
        for key in ("epochs", "steps")
        if before.get(key) and after.get(key) and after[key] > before[key]
    }


def _without_extension(before: list, after: list, begun: int) -> list:
    """Returns the phases that have begun; a longer last one gets its saved length."""
    last = after[begun - 1 : begun]
    last = [one | _longer(before[begun - 1], one) for one in last]
    return [*after[: max(begun - 1, 0)], *last]


def _without_inner_rate(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Drops an inner optimizer's constant learning rate, since the phases set it."""
    inner = facts.get("inner_optimizer")
    if not isinstance(inner, Mapping):
        return dict(facts)
    config = dict(inner.get("config", {}))
    if not isinstance(config.get("learning_rate"), Mapping):
        config.pop("learning_rate", None)
    return {**facts, "inner_optimizer": {**inner, "config": config}}


def _phase_facts(phase: Phase) -> dict[str, Any]:
    facts = {f.name: getattr(phase, f.name) for f in dataclasses.fields(phase)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in facts.items()}


def _weight_differences(saved: dict, now: dict) -> list[str]:
    pairs = {k: (saved.get(k, "missing"), now.get(k, "missing")) for k in saved | now}
    return [f"model: {k} was {a}, now {b}" for k, (a, b) in pairs.items() if a != b]


def _list_differences(name: str, item: str, saved: list, now: list) -> list[str]:
    """Compares the phases of two schedules, or the layers of two models."""
    if len(saved) != len(now):
        return [f"{name}: it had {len(saved)} {item}s, now {len(now)}"]
    sentences = []
    for number, (before, after) in enumerate(zip(saved, now, strict=True), start=1):
        kind = f" ({before['class']})" if "class" in before else ""
        label = f"{name}: {item} {number}{kind}"
        sentences += _setting_differences(label, before, after)
    return sentences


def _setting_differences(name: str, saved: dict, now: dict) -> list[str]:
    """Compares the class and the settings of two objects."""
    if saved.get("class") != now.get("class"):
        return [f"{name} was {saved['class']}, now {now['class']}"]
    return [
        f"{name} had {key}={saved[key]!r}, now {now[key]!r}"
        for key in saved
        if key in now and saved[key] != now[key]
    ]
