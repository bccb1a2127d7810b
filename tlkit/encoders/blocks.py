"""Blocks: the stretches of an encoder that are frozen and thawed as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A stretch of an encoder with one tensor in and one tensor out.

    Args:
        name: Its name, such as `"stage3"` or `"layer_11"`; patterns match this.
        variables: Its Keras variables, statistics of batch norms included.
        learnable: Those of them that may be trained.
        batch_norms: How many batch norms it holds.
        parts: The finer stretches inside, such as a ResNet stage's residual units;
            empty where there is only one.
    """

    name: str
    variables: tuple[keras.Variable, ...]
    learnable: tuple[keras.Variable, ...]
    batch_norms: int = 0
    parts: tuple[Block, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers its variables hold."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    @property
    def trainable(self) -> bool:
        """Whether any of its variables is trained."""
        return any(variable.trainable for variable in self.learnable)

    def __repr__(self) -> str:
        return (
            f"Block({self.name!r}, {len(self.variables)} variables, "
            f"{self.parameters:,} parameters, {self.batch_norms} batch norms, "
            f"{len(self.parts)} parts)"
        )


def table(blocks: Sequence[Block]) -> str:
    """A table of blocks for people to read, one line each."""
    rows = [("block", "parameters", "variables", "batch norms", "parts", "trained")]
    for block in blocks:
        numbers = (block.parameters, len(block.variables), block.batch_norms)
        cells = [f"{number:,}" for number in (*numbers, len(block.parts))]
        rows.append((block.name, *cells, "yes" if block.trainable else "no"))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
