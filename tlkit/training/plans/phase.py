"""A phase: which part of a model is trained, for how long, and how fast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ...errors import PlanError

Decay = Literal["cosine", "linear", "constant", "slanted"]


@dataclasses.dataclass(frozen=True, repr=False)
class Phase:
    """A stretch of training with one set of trained blocks.

    Args:
        train: What of the encoder is trained: `"head"` (nothing of it), `"all"`, a
            number (that many blocks at its end) or a list of patterns for the names of
            blocks and parts, as in a shell (`["stage3", "layer_1*"]`). What is not
            encoder, such as the head, is always trained. In a model without an encoder
            of `tlkit`, `"all"` is what the model itself leaves trainable.
        epochs: How often to go through the data, at least 1; 1 if `steps` is not given
            either.
        steps: How many updates to make instead, at least 1, however many epochs that
            takes; an update is one batch, or several that are accumulated.
        learning_rate: The highest learning rate of the phase, above 0.
        warmup: The share of the phase's steps, in [0, 1), in which the learning rate
            rises to its highest in a straight line.
        decay: How it falls after that: to 0 along a `"cosine"` or a `"linear"` line;
            not at all (`"constant"`); or in a straight line to a 32nd, where its
            warm-up begins too (`"slanted"`, the slanted triangle of ULMFiT, arXiv
            1801.06146, in which `warmup` is 0.1).
        layer_decay: What the rate is multiplied by from the head to the last block of
            the encoder, and then from each block to the one before it, in (0, 1]; the
            parts of a block share its rate. ULMFiT has 1/2.6. Needs an encoder of
            `tlkit`.
        weight_decay: Share of a weight that a step takes away, times the learning rate;
            `None` leaves it to the optimizer: 0.01 for that of `tlkit.fit`, which
            spares vectors (biases, norms).
        l2_sp: Strength of a pull back to the weights that the encoder had before `fit`:
            half of it times the squared distance is added to the loss (L2-SP,
            arXiv 1802.01483). Vectors are spared. 0.01 to 0.1 is usual; 0 is off.
        patience: If given, at least 1: the phase ends when the loss has not got better
            for that many epochs, and goes back to the weights of its best epoch. It is
            the loss on the validation data, or where there is none, that of training.
            `epochs` must be given too, and is the most that the phase can take.
            `decay="constant"` goes well with it, since the others fall over all of
            `epochs`.
        batch_norm: What the batch norms of trained blocks do: `"frozen"` uses the
            published statistics, `"train"` those of the batch, and updates them.
        dropout: Whether the encoder's own dropout is on in trained blocks; where a
            block has batch norms that are trained, it is. The head's is as it was
            built.
        name: What to call the phase; by default what it trains.

    Raises:
        PlanError: An argument is out of its range.

    Example:

    ```python
    schedule = [
        tlkit.Phase("head", epochs=30, patience=3, decay="constant"),
        tlkit.Phase(2, epochs=3, learning_rate=1e-4, warmup=0.1),
    ]
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
        _check_number("learning_rate", self.learning_rate, "a number above 0", above=0)
        _check_number("warmup", self.warmup, "a share in [0, 1)", least=0, below=1)
        if self.weight_decay is not None:
            wanted = "None or a number of 0 or more"
            _check_number("weight_decay", self.weight_decay, wanted, least=0)
        _check_number("l2_sp", self.l2_sp, "a number of 0 or more", least=0)
        _check_choice("decay", self.decay, get_args(Decay))
        wanted = "a number above 0 and at most 1"
        _check_number("layer_decay", self.layer_decay, wanted, above=0, most=1)
        _check_choice("batch_norm", self.batch_norm, ("frozen", "train"))
        _check_choice("dropout", self.dropout, (True, False))
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise PlanError(f"name must be a text that says something: {self.name!r}.")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)

    @property
    def title(self) -> str:
        """Its name, or else what it trains."""
        if self.name is not None:
            return self.name
        if isinstance(self.train, int):
            return f"last {self.train}" if self.train else "head"
        return self.train if isinstance(self.train, str) else ", ".join(self.train)

    def __repr__(self) -> str:
        given = [
            repr(list(self.train) if isinstance(self.train, tuple) else self.train)
        ]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "train" and value != field.default:
                given.append(f"{field.name}={value!r}")
        return f"Phase({', '.join(given)})"


def _checked_train(train):
    """The choice, as a tuple if it is a list of patterns."""
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
            "patience ends a phase before its epochs are over, so epochs must say how "
            f"many it can take at most. Received: patience={patience!r}, epochs=None, "
            f"steps={steps!r}. Type Phase(…, epochs=30, patience={patience!r})."
        )


def check_whole(name: str, value) -> None:
    """Raises a `PlanError` for what is no whole number of 1 or more."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < 1:
        raise PlanError(f"{name} must be a whole number of 1 or more; got {value!r}.")


def _check_number(
    name, value, wanted, *, above=None, least=None, below=None, most=None
) -> None:
    right = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    right = right and math.isfinite(value)
    right = right and (above is None or value > above)
    right = right and (least is None or value >= least)
    right = right and (below is None or value < below)
    right = right and (most is None or value <= most)
    if not right:
        raise PlanError(f"{name} must be {wanted}; got {value!r}.")


def _check_choice(name: str, value, choices: Sequence[str]) -> None:
    if value not in choices:
        there = ", ".join(repr(choice) for choice in choices)
        raise PlanError(f"{name} must be one of {there}; got {value!r}.")
