"""Freezes and thaws: the only place that writes `trainable`."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal

import keras

from ..errors import PlanError
from .encoder import Block, Encoder

BatchNorm = Literal["frozen", "train"]


def find_encoder(model: keras.Model | Encoder) -> Encoder | None:
    """The encoder in a model, or `None`.

    Raises:
        PlanError: There are several.
    """
    if isinstance(model, Encoder):
        return model
    found = {id(x): x for x in nested_layers(model) if isinstance(x, Encoder)}
    if len(found) > 1:
        names = ", ".join(repr(encoder.name) for encoder in found.values())
        raise PlanError(
            f"A model may hold one encoder here; this one holds {names}. Call "
            "tlkit.freeze(encoder, …) on each."
        )
    return next(iter(found.values()), None)


def nested_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and the layers in its `layers`, recursively."""
    inner = [x for child in getattr(layer, "layers", ()) for x in nested_layers(child)]
    return [layer, *inner]


def choose_blocks(
    blocks: Sequence[Block], train: str | int | Sequence[str]
) -> tuple[Block, ...]:
    """The blocks (or parts of blocks) that a choice names, in the order of depth.

    Args:
        blocks: The encoder's blocks.
        train: `"head"` for none of them, `"all"`, a number for that many at the end,
            or patterns as in a shell (`"layer_1*"`), which match names of blocks and
            of their parts.

    Returns:
        The chosen blocks.

    Raises:
        PlanError: A pattern matches nothing, or a number is out of range.
    """
    names = ", ".join(block.name for block in blocks)
    if train in ("head", "all"):
        return tuple(blocks) if train == "all" else ()
    if isinstance(train, bool) or not isinstance(train, (int, list, tuple)):
        raise PlanError(
            'train must be "head", "all", a number of blocks at the end or a list of '
            f"patterns. Received: train={train!r}. The blocks are: {names}."
        )
    if isinstance(train, int):
        if not 0 <= train <= len(blocks):
            raise PlanError(
                f"train={train} asks for {train} blocks of an encoder that has "
                f"{len(blocks)}: {names}. Give 0 to {len(blocks)}."
            )
        return tuple(blocks[len(blocks) - train :])
    return _matching(blocks, train, names)


def _matching(blocks, patterns: Sequence[str], names: str) -> tuple[Block, ...]:
    found: list[Block] = []
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
        for block, whole in matches:  # whole blocks come before their parts
            if block not in found and whole not in found:
                found.append(block)
    # A part may have been named before the whole block was.
    inside = {part for block in found for part in block.parts}
    order = [x for block in blocks for x in (block, *block.parts)]
    return tuple(block for block in order if block in found and block not in inside)


def freeze(
    model: keras.Model | Encoder,
    *,
    train: str | int | Sequence[str] = "head",
    batch_norm: BatchNorm | None = None,
    dropout: bool | None = None,
) -> tuple[Block, ...]:
    """Freezes an encoder but for some blocks; what is not encoder stays trainable.

    Every variable's `trainable` is written each time, so what was chosen before does
    not matter. A model that was compiled and fitted by Keras must be compiled again
    (Keras ignores the change otherwise, without a word); `tlkit.fit` sees to it.

    Args:
        model: A model with an encoder in it, or an encoder. In a model without one,
            `train="all"` makes everything trainable and nothing else is allowed.
        train: `"head"` (nothing of the encoder), `"all"`, a number (that many blocks
            at the end) or a list of patterns such as `["stage3", "layer_1*"]`, which
            match the names of blocks and of parts.
        batch_norm: What the batch norms of trained blocks do in training: `"frozen"`
            uses the published statistics, `"train"` those of the batch. Unchanged if
            `None`.
        dropout: Whether the encoder's own dropout is on in trained blocks, in training;
            where a block has batch norms that are trained, it is. Unchanged if `None`.

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
    if batch_norm is not None:
        encoder.batch_norm = _checked(batch_norm)
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


def _checked(batch_norm: str) -> str:
    if batch_norm not in ("frozen", "train"):
        raise PlanError(
            f'batch_norm must be "frozen" or "train". Received: {batch_norm!r}.'
        )
    return batch_norm


def _without_encoder(model: keras.Model, train) -> tuple[Block, ...]:
    if train != "all":
        raise PlanError(
            f"There is no tlkit encoder in this model, so train={train!r} has no "
            'meaning. Use train="all", or build the model around '
            "tlkit.load_encoder(source)."
        )
    model.trainable = True
    return ()
