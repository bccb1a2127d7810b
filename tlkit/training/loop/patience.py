"""Ends a phase whose loss stops improving."""

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np


class Patience:
    """Watches the loss of a phase, and stores the weights of its best epoch.

    Args:
        epochs: The number of epochs without a lower loss after which the phase ends;
            `None` for no limit.
        variables: The variables that the phase may change.
    """

    def __init__(self, epochs: int | None, variables: Sequence[keras.Variable]):
        self.epochs, self.variables = epochs, list(variables)
        self.best_loss, self.epochs_without = math.inf, 0
        self.best_values: list[np.ndarray] = []

    def is_exhausted(self, logs: Mapping[str, float]) -> bool:
        """Records the logs of an epoch; returns whether to end the phase."""
        if self.epochs is None:
            return False
        loss = logs.get("val_loss", logs["loss"])
        if loss < self.best_loss:
            self.best_loss, self.epochs_without = loss, 0
            # Copies: NumPy arrays may share the memory of the variables.
            to_numpy = keras.ops.convert_to_numpy
            self.best_values = [np.array(to_numpy(v)) for v in self.variables]
        else:
            self.epochs_without += 1
        return self.epochs_without >= self.epochs

    def restore_best(self) -> None:
        """Restores the weights of the best epoch, unless it was the last one."""
        if self.best_values and self.epochs_without:
            for variable, value in zip(self.variables, self.best_values, strict=True):
                variable.assign(value)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Returns the arrays and the plain values that a checkpoint stores."""
        arrays = {str(i): value for i, value in enumerate(self.best_values)}
        return arrays, {"best": self.best_loss, "waited": self.epochs_without}

    def set_state(
        self, arrays: Mapping[str, np.ndarray], state: Mapping[str, float]
    ) -> None:
        """Restores what `state` returned."""
        self.best_loss, self.epochs_without = state["best"], int(state["waited"])
        self.best_values = [arrays[str(i)] for i in range(len(arrays))]
