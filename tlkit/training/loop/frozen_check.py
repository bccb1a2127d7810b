"""Verifies by checksums that no frozen weight changed in a phase."""

import dataclasses
import zlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from ...errors import TrainingError


@dataclasses.dataclass(frozen=True)
class FrozenCheck:
    """The result of verifying which variables changed in a phase.

    Attributes:
        planned: The number of variables to train.
        still: Paths of the variables to train that did not change.
        frozen: The number of frozen variables; none of them changed.
        missing: Paths of the variables to train that received no gradient.
    """

    planned: int
    still: tuple[str, ...]
    frozen: int
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        changed = self.planned - len(self.still)
        text = (
            f"{changed:,} of {self.planned:,} trained variables changed, none of "
            f"{self.frozen:,} frozen ones did"
        )
        lists = (("unchanged", self.still), ("no gradient", self.missing))
        for label, paths in lists:
            more = ", …" if len(paths) > 3 else ""
            text += f"; {label}: {', '.join(paths[:3])}{more}" if paths else ""
        return text


class WeightChecksums:
    """Checksums of a phase's variables at its beginning.

    Args:
        trained: The trained variables.
        frozen: The variables that must not change.
        values: The checksums of `trained` and `frozen` from a checkpoint; by default
            those of the current values. (Copies would double the model's memory.)
    """

    def __init__(
        self,
        trained: Sequence[keras.Variable],
        frozen: Sequence[keras.Variable],
        values: tuple[Sequence[int], Sequence[int]] | None = None,
    ):
        self.trained, self.frozen = tuple(trained), tuple(frozen)
        self.values = values or (checksums(self.trained), checksums(self.frozen))

    def verify(self, *, phase: str, missing: Sequence[str] = ()) -> FrozenCheck:
        """Compares the variables with the checksums from the beginning of the phase.

        `phase` is its name, for the message; `missing` are the paths of the variables
        that received no gradient, for the result.

        Raises:
            TrainingError: A frozen variable changed.
        """
        trained_before, frozen_before = self.values
        changed = _changed(self.frozen, frozen_before)
        if changed:
            names = ", ".join(variable.path for variable in changed[:5])
            raise TrainingError(
                f"{len(changed):,} frozen variables changed in phase {phase!r}: "
                f"{names}. They were written outside the phase's plan: by a callback, "
                "or by a layer that ignores `trainable`."
            )
        changed_ids = {id(v) for v in _changed(self.trained, trained_before)}
        still = tuple(v.path for v in self.trained if id(v) not in changed_ids)
        return FrozenCheck(len(self.trained), still, len(self.frozen), tuple(missing))


def _changed(
    variables: Sequence[keras.Variable], before: Sequence[int]
) -> list[keras.Variable]:
    now = checksums(variables)
    return [v for v, a, b in zip(variables, before, now, strict=True) if a != b]


def checksums(variables: Sequence[keras.Variable]) -> tuple[int, ...]:
    """Computes the CRC-32 of each variable's value."""
    return tuple(_checksum(tf.convert_to_tensor(v.value)) for v in variables)


def _checksum(tensor: tf.Tensor) -> int:
    try:
        # The tensor's own memory; `numpy()` copies it, which takes six times as long.
        return zlib.crc32(memoryview(tensor))
    except ValueError:  # Python's buffers do not support bfloat16
        return zlib.crc32(tensor.numpy().tobytes())
