"""The proof: exactly what the plan says has moved, shown on the numbers."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from ...errors import TrainingError
from ..plans.trainable_selection import Choice


@dataclasses.dataclass(frozen=True)
class Proof:
    """What moved in a phase.

    Attributes:
        planned: How many variables were to be trained.
        still: Paths of those that did not move all the same.
        frozen: How many variables were frozen; none of them moved.
        missing: Paths of those of the planned that have no gradient at all.
    """

    planned: int
    still: tuple[str, ...]
    frozen: int
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        moved = self.planned - len(self.still)
        text = (
            f"{moved:,} of {self.planned:,} trained variables moved, none of "
            f"{self.frozen:,} frozen ones did"
        )
        for what, paths in (("still", self.still), ("no gradient", self.missing)):
            more = ", …" if len(paths) > 3 else ""
            text += f"; {what}: {', '.join(paths[:3])}{more}" if paths else ""
        return text


@dataclasses.dataclass(frozen=True, eq=False)
class Before:
    """Checksums from the beginning of a phase."""

    choice: Choice
    trained: tuple[int, ...]
    frozen: tuple[int, ...]


def remember(choice: Choice) -> Before:
    """Takes the checksums of what a phase trains, and of what it must not move."""
    return Before(choice, checksums(choice.trained), checksums(choice.frozen))


def prove(before: Before, *, phase: str, missing: Sequence[str] = ()) -> Proof:
    """Compares with the beginning of the phase.

    Args:
        before: What `remember` gave then.
        phase: Name of the phase, for the message.
        missing: Paths of the variables without a gradient.

    Returns:
        What moved.

    Raises:
        TrainingError: A frozen variable moved.
    """
    choice = before.choice
    wrong = _moved(choice.frozen, before.frozen)
    if wrong:
        names = ", ".join(variable.path for variable in wrong[:5])
        raise TrainingError(
            f"{len(wrong):,} frozen variables moved in phase {phase!r}: {names}. "
            "Something other than the phase wrote to them: a callback, or a layer that "
            "ignores `trainable`. The model is not what the plan says."
        )
    moved = {id(variable) for variable in _moved(choice.trained, before.trained)}
    still = tuple(v.path for v in choice.trained if id(v) not in moved)
    return Proof(len(choice.trained), still, len(choice.frozen), tuple(missing))


def _moved(variables: Sequence[keras.Variable], before: Sequence[int]):
    now = checksums(variables)
    return [v for v, a, b in zip(variables, before, now, strict=True) if a != b]


def checksums(variables: Sequence[keras.Variable]) -> tuple[int, ...]:
    """A checksum of the value of each variable."""
    # A checksum for each, not a copy of all: that would double the model's memory.
    return tuple(_checksum(tf.convert_to_tensor(v.value)) for v in variables)


def _checksum(tensor: tf.Tensor) -> int:
    try:
        # The memory itself; `numpy()` copies it, which takes six times as long.
        return zlib.crc32(memoryview(tensor))
    except ValueError:  # Python's buffers know no bfloat16
        return zlib.crc32(tensor.numpy().tobytes())
