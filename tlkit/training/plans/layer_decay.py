"""Computes discriminative learning rates: earlier blocks learn more slowly.

Howard and Ruder 2018, "Universal language model fine-tuning for text classification",
arXiv 1801.06146.
"""

from collections.abc import Sequence

import keras

from ...encoders import find_encoder
from ...errors import PlanError


def rate_factors(
    model: keras.Model, variables: Sequence[keras.Variable], layer_decay: float
) -> tuple[float, ...]:
    """Computes the factor on the learning rate for each trained variable.

    The factor is 1 for the head, `layer_decay` for the last block of the encoder, and
    for each earlier block `layer_decay` times that of the next block, trained or not. A
    variable that several blocks share has the factor of the first of them, the lowest.

    Raises:
        PlanError: `layer_decay` is not 1, and the model has no encoder of `tlkit`.
    """
    check_layer_decay(model, layer_decay)
    encoder = find_encoder(model)
    blocks = () if encoder is None else encoder.blocks
    by_id: dict[int, float] = {}
    for block, factor in zip(
        blocks, block_factors(len(blocks), layer_decay), strict=True
    ):
        for variable in block.variables:
            by_id.setdefault(id(variable), factor)
    return tuple(by_id.get(id(variable), 1.0) for variable in variables)


def check_layer_decay(model: keras.Model, layer_decay: float) -> None:
    """Raises a `PlanError` for a `layer_decay` below 1 in a model without blocks."""
    if layer_decay != 1 and find_encoder(model) is None:
        raise PlanError(
            "There is no tlkit encoder in this model, so it has no blocks between "
            f"which the learning rate could fall. Received: layer_decay={layer_decay:g}"
            ". Leave it out, or build the model around tlkit.load_encoder(source)."
        )


def block_factors(block_count: int, layer_decay: float) -> tuple[float, ...]:
    """Computes each block's factor by depth; that of the last is `layer_decay`."""
    return tuple(layer_decay ** (block_count - i) for i in range(block_count))
