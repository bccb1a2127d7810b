"""A phase: the trained part of a model, the duration and the learning rate.

Tested in tests/training/plans/test_schedules.py.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ...errors import PlanError

Decay = Literal["cosine", "linear", "constant", "slanted"]


@dataclasses.dataclass(frozen=True, repr=False)
class Phase:
    """A period of training with one set of trained blocks.

    Args:
        train: The trained part of the encoder: `"head"` (nothing of it), `"all"`, a
            number (that many blocks at its end) or a list of shell patterns for names
            of blocks and parts (`["stage3", "layer_1*"]`). Layers outside the encoder,
            such as the head, are always trained. In a model without an encoder of
            `tlkit`, `"all"` means the weights that the model leaves trainable.
        epochs: Passes over the data, at least 1; 1 if `steps` is not given either.
        steps: The number of updates, instead of `epochs`, at least 1. An update is one
            batch, or several whose gradients are accumulated.
        learning_rate: The highest learning rate of the phase, at least 0.
        warmup: The fraction of the phase's steps, in [0, 1), in which the learning rate
            rises linearly to its highest value.
        decay: How the learning rate falls afterwards: `"cosine"` or `"linear"` to 0;
            `"constant"`, not at all; or `"slanted"`, linearly to 1/32, at which its
            warm-up begins too (the slanted triangle of ULMFiT, arXiv 1801.06146, in
            which `warmup` is 0.1).
        layer_decay: The factor, in (0, 1], on the learning rate from the head to the
            last block of the encoder, and from each block to the one before it. The
            parts of a block have the same rate. ULMFiT uses 1/2.6. Below 1, the model
            needs an encoder of `tlkit`.
        weight_decay: The fraction of a weight, times the learning rate, that an update
            subtracts. `None` uses the optimizer's: 0.01 for the default optimizer of
            `tlkit.fit`, which excludes vectors (biases, norms).
        l2_sp: The strength of L2-SP (arXiv 1802.01483): half of it times the squared
            distance to the encoder's weights before `fit` is added to the loss. Vectors
            are excluded. 0.01 to 0.1 is usual; 0 is off.
        patience: If given, at least 1: the phase ends when the loss has not improved
            for that many epochs, and restores the weights of its best epoch. The loss
            is that on the validation data, or without any the training loss. `epochs`
            must be given too, as the maximum. Use it with `decay="constant"`, since the
            others fall over all of `epochs`.
        batch_norm: The statistics that batch norms of trained blocks use: `"frozen"`,
            the published ones, or `"train"`, those of the batch, and update them.
        dropout: Whether the encoder's own dropout is on in trained blocks. It always is
            in a block with trained batch norms. The head's dropout is not affected.
        name: The name of the phase; by default its trained blocks.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = [
        tlkit.Phase("head", epochs=30, patience=3, decay="constant"),
        tlkit.Phase(2, epochs=3, learning_rate=1e-4, warmup=0.1),
    ]
    [phase.title for phase in schedule]  # ['head', 'last 2']
    ```
    """

    train: str | int | Sequence[str] = "all"
    _: dataclasses.KW_ONLY
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.0
    decay: Decay = "cosine"
    layer_decay: float = 1.0
    weight_decay: float | None = None
    l2_sp: float = 0.0
    patience: int | None = None
    batch_norm: Literal["frozen", "train"] = "frozen"
    dropout: bool = True
    name: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "train", _checked_train(self.train))
        _check_length(self.epochs, self.steps, self.patience)
        for name, allowed, is_allowed in _RANGES:
            _check_number(name, getattr(self, name), allowed, is_allowed)
        _check_choice("decay", self.decay, get_args(Decay))
        _check_choice("batch_norm", self.batch_norm, ("frozen", "train"))
        _check_choice("dropout", self.dropout, (True, False))
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise PlanError(f"name must be a non-empty string; got {self.name!r}.")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)

    @property
    def title(self) -> str:
        """The name of the phase, or else a description of its trained blocks."""
        if self.name is not None:
            return self.name
        if isinstance(self.train, int):
            return f"last {self.train}" if self.train else "head"
        return self.train if isinstance(self.train, str) else ", ".join(self.train)

    def __repr__(self) -> str:
        train = list(self.train) if isinstance(self.train, tuple) else self.train
        arguments = [repr(train)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "train" and value != field.default:
                arguments.append(f"{field.name}={value!r}")
        return f"Phase({', '.join(arguments)})"


def _checked_train(train):
    """Validates `train` and returns it; a list of patterns becomes a tuple."""
    if train in ("head", "all"):
        return train
    if isinstance(train, (int, np.integer)) and not isinstance(train, bool):
        if train >= 0:
            return int(train)
    elif isinstance(train, (list, tuple)) and train:
        if all(isinstance(pattern, str) for pattern in train):
            return tuple(train)
    hint = f" Type train=[{train!r}]." if isinstance(train, str) else ""
    raise PlanError(
        'train must be "head", "all", a number of blocks at the end (0 or more) or a '
        f"list of patterns. Received: train={train!r}.{hint}"
    )


def _check_length(epochs, steps, patience) -> None:
    if epochs is not None and steps is not None:
        raise PlanError(
            "A phase lasts for epochs or for steps, not both. Received: "
            f"epochs={epochs!r}, steps={steps!r}."
        )
    for name, value in (("epochs", epochs), ("steps", steps)):
        if value is not None:
            check_whole(name, value)
    if patience is None:
        return
    check_whole("patience", patience)
    if epochs is None:
        raise PlanError(
            "patience ends a phase before its last epoch, so epochs must be given as "
            f"the maximum. Received: patience={patience!r}, epochs=None, "
            f"steps={steps!r}. Type Phase(…, epochs=30, patience={patience!r})."
        )


def check_whole(name: str, value) -> None:
    """Raises a `PlanError` unless a value is a whole number of 1 or more."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise PlanError(f"{name} must be a whole number of 1 or more; got {value!r}.")


_RANGES = (
    ("learning_rate", "a number of 0 or more", lambda x: x >= 0),
    ("warmup", "a number in [0, 1)", lambda x: 0 <= x < 1),
    ("layer_decay", "a number above 0 and at most 1", lambda x: 0 < x <= 1),
    ("weight_decay", "None or a number of 0 or more", lambda x: x >= 0),
    ("l2_sp", "a number of 0 or more", lambda x: x >= 0),
)


def _check_number(name, value, allowed, is_allowed) -> None:
    if value is None and allowed.startswith("None"):
        return
    valid = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not valid or not math.isfinite(value) or not is_allowed(value):
        raise PlanError(f"{name} must be {allowed}; got {value!r}.")


def _check_choice(name: str, value, choices: Sequence[str]) -> None:
    if value not in choices:
        allowed = ", ".join(repr(choice) for choice in choices)
        raise PlanError(f"{name} must be one of {allowed}; got {value!r}.")
