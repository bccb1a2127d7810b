"""Discriminative learning rates: each block learns more slowly than the one after it.

Howard and Ruder 2018, "Universal language model fine-tuning for text classification",
arXiv 1801.06146.
"""

from __future__ import annotations

import keras

from ...encoders import find_encoder
from ...errors import PlanError
from .trainable_selection import Choice


def rate_factors(
    model: keras.Model, choice: Choice, layer_decay: float
) -> tuple[float, ...]:
    """What the learning rate of a phase is multiplied by for each trained variable.

    Args:
        model: The model.
        choice: What the phase trains of it.
        layer_decay: The phase's `layer_decay`, in (0, 1].

    Returns:
        A factor for each of `choice.trained`, in its order: 1 for the head,
        `layer_decay` for the last block of the encoder, and for each block before it
        that of the one after it times `layer_decay`, whether that one is trained or
        not. A variable that several blocks share has the factor of the first of them,
        the lowest: what the early block needs of it must not go faster than that block.

    Raises:
        PlanError: `layer_decay` is not 1, and the model has no encoder of `tlkit`.

    Example:

    ```python
    from tlkit.training.choosing import choose
    from tlkit.training.layer_rates import rate_factors

    phase = tlkit.Phase(2, layer_decay=0.5)
    choice = choose(model, phase)
    for variable, factor in zip(choice.trained, rate_factors(model, choice, 0.5)):
        print(variable.path, factor)  # 0.25, 0.5, and 1.0 for the head
    ```
    """
    encoder = find_encoder(model)
    if encoder is None:
        if layer_decay != 1:
            raise PlanError(
                "There is no tlkit encoder in this model, so it has no blocks between "
                f"which the rate could fall. Received: layer_decay={layer_decay:g}. "
                "Leave it out, or build the model around tlkit.load_encoder(source)."
            )
        return (1.0,) * len(choice.trained)
    blocks = encoder.blocks
    found: dict[int, float] = {}
    for block, factor in zip(
        blocks, block_factors(len(blocks), layer_decay), strict=True
    ):
        for variable in block.variables:
            found.setdefault(id(variable), factor)
    return tuple(found.get(id(variable), 1.0) for variable in choice.trained)


def block_factors(blocks: int, layer_decay: float) -> tuple[float, ...]:
    """The factors of that many blocks, by depth: the last has `layer_decay`."""
    return tuple(layer_decay ** (blocks - i) for i in range(blocks))
