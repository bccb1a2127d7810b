"""Freezes and unfreezes blocks: the only module that writes `trainable`."""

import fnmatch
import numbers
from collections.abc import Sequence
from typing import Literal

import keras

from ..errors import PlanError
from .encoder import Block, Encoder

BatchNorm = Literal["frozen", "train"]


def find_encoder(model: keras.Model | Encoder) -> Encoder | None:
    """Returns the encoder in a model, or `None`.

    Raises:
        PlanError: The model contains several encoders.
    """
    if isinstance(model, Encoder):
        return model
    encoders = {id(x): x for x in nested_layers(model) if isinstance(x, Encoder)}
    if len(encoders) > 1:
        names = ", ".join(repr(encoder.name) for encoder in encoders.values())
        raise PlanError(
            f"tlkit uses models with one encoder; this one contains {names}. Call "
            "tlkit.freeze(encoder, …) on each."
        )
    return next(iter(encoders.values()), None)


def nested_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and the layers in its `layers`, recursively."""
    inner = [x for child in getattr(layer, "layers", ()) for x in nested_layers(child)]
    return [layer, *inner]


def choose_blocks(
    blocks: Sequence[Block], train: str | int | Sequence[str]
) -> tuple[Block, ...]:
    """Returns the blocks (or parts of blocks) to train, in the order of depth.

    Args:
        blocks: The encoder's blocks.
        train: `"head"` for no block, `"all"`, a number for that many blocks at the end,
            or a list of shell patterns (`"layer_1*"`) for names of blocks and parts.

    Raises:
        PlanError: A pattern matches nothing, or a number is out of range.
    """
    names = ", ".join(block.name for block in blocks)
    if train in ("head", "all"):
        return tuple(blocks) if train == "all" else ()
    if isinstance(train, bool) or not isinstance(
        train, (numbers.Integral, list, tuple)
    ):
        raise PlanError(
            'train must be "head", "all", a number of blocks at the end or a list of '
            f"patterns. Received: train={train!r}. The blocks are: {names}."
        )
    if isinstance(train, numbers.Integral):
        if not 0 <= train <= len(blocks):
            raise PlanError(
                f"train={train} is out of range: the encoder has {len(blocks)} blocks: "
                f"{names}. Give 0 to {len(blocks)}."
            )
        return tuple(blocks[len(blocks) - train :])
    return _matching(blocks, train, names)


def _matching(blocks, patterns: Sequence[str], names: str) -> tuple[Block, ...]:
    chosen: list[Block] = []
    candidates = [(b, None) for b in blocks]
    candidates += [(part, b) for b in blocks for part in b.parts]
    for pattern in patterns:
        matches = [
            (block, whole)
            for block, whole in candidates
            if fnmatch.fnmatchcase(block.name, str(pattern))
        ]
        if not matches:
            raise PlanError(
                f"No block matches the pattern {pattern!r}. The blocks are: {names}. "
                f"For the last one, type train=1 or train=[{blocks[-1].name!r}]."
            )
        for block, whole in matches:  # all blocks come before the first part
            if block not in chosen and whole not in chosen:
                chosen.append(block)
    # A pattern for a part may come before the pattern for its block, which contains it.
    # Drop such a part.
    inside = {part for block in chosen for part in block.parts}
    order = [x for block in blocks for x in (block, *block.parts)]
    return tuple(block for block in order if block in chosen and block not in inside)


def freeze(
    model: keras.Model | Encoder,
    *,
    train: str | int | Sequence[str] = "head",
    batch_norm: BatchNorm | None = None,
    dropout: bool | None = None,
) -> tuple[Block, ...]:
    """Freezes an encoder except for some blocks; all other layers stay trainable.

    Each call sets every variable's `trainable`, so earlier calls have no effect.
    `tlkit.fit` uses the change at once. If the model was trained by Keras's own
    `model.fit`, compile it again, or Keras silently ignores the change.

    Args:
        model: A model with an encoder in it, or an encoder. For a model without one,
            only `train="all"` is allowed, which makes everything trainable.
        train: `"head"` (no block), `"all"`, a number (that many blocks at the end) or a
            list of shell patterns such as `["stage3", "layer_1*"]` for the names of
            blocks and of parts.
        batch_norm: The mode of batch norms in trained blocks in training: `"frozen"`
            uses the published statistics, `"train"` those of the batch. `None` keeps
            the current mode.
        dropout: Whether the encoder's own dropout is on in trained blocks, in training.
            In a block with trained batch norms it is always on. `None` keeps the
            current setting.

    Returns:
        The trained blocks in the order of depth.

    Raises:
        PlanError: A pattern matches no block, a number is out of range, or the model
            has no encoder.

    Example:

    ```python
    model = tlkit.image_classifier(tlkit.samples.encoder("resnet50"), ["cat", "dog"])
    [block.name for block in tlkit.freeze(model, train=1)]  # ["stage3"]
    ```
    """
    encoder = find_encoder(model)
    if encoder is None:
        return _without_encoder(model, train)
    chosen = choose_blocks(encoder.blocks, train)
    if batch_norm not in (None, "frozen", "train"):
        raise PlanError(
            f'batch_norm must be "frozen" or "train". Received: {batch_norm!r}.'
        )
    encoder.batch_norm = batch_norm or encoder.batch_norm
    if dropout is not None:
        encoder.dropout = bool(dropout)
    trained = {id(v) for block in chosen for v in block.learnable}
    for layer in nested_layers(model):
        if not layer.trainable:
            layer.trainable = True
    for block in encoder.blocks:
        for variable in block.learnable:
            variable.trainable = id(variable) in trained
    return chosen


def _without_encoder(model: keras.Model, train) -> tuple[Block, ...]:
    if train != "all":
        raise PlanError(
            f"There is no tlkit encoder in this model, so train={train!r} has no "
            'meaning. Use train="all", or build the model around '
            "tlkit.load_encoder(source)."
        )
    model.trainable = True
    return ()
