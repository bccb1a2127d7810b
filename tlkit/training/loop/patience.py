"""A phase that ends when it gets no better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np


class Patience:
    """Watches the loss of a phase, and keeps the weights of its best epoch.

    Args:
        epochs: How many epochs may go by without a lower loss; `None` for all.
        variables: What the phase may move.
    """

    def __init__(self, epochs: int | None, variables: Sequence[keras.Variable]):
        self.epochs, self.variables = epochs, list(variables)
        self.best, self.waited = math.inf, 0
        self.kept: list[np.ndarray] = []

    def worn_out(self, logs: Mapping[str, float]) -> bool:
        """Takes in an epoch's figures; says whether to end the phase."""
        if self.epochs is None:
            return False
        loss = logs.get("val_loss", logs["loss"])
        if loss < self.best:
            self.best, self.waited = loss, 0
            self.kept = [_copy(variable) for variable in self.variables]
        else:
            self.waited += 1
        return self.waited >= self.epochs

    def put_back(self) -> None:
        """Gives the model the weights of the best epoch, if a later one was worse."""
        if self.kept and self.waited:
            for variable, value in zip(self.variables, self.kept, strict=True):
                variable.assign(value)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What a checkpoint keeps: arrays and plain values."""
        arrays = {str(i): value for i, value in enumerate(self.kept)}
        return arrays, {"best": self.best, "waited": self.waited}

    def set_state(
        self, arrays: Mapping[str, np.ndarray], state: Mapping[str, float]
    ) -> None:
        """Goes on from what `state` gave."""
        self.best, self.waited = state["best"], int(state["waited"])
        self.kept = [arrays[str(i)] for i in range(len(arrays))]


def _copy(variable: keras.Variable) -> np.ndarray:
    # A copy: what is given may be the memory of the variable itself.
    return np.array(keras.ops.convert_to_numpy(variable))
