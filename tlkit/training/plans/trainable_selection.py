"""What a phase trains of a model, variable by variable, without changing the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import keras

from ...encoders import Block, Encoder, choose_blocks, find_encoder
from ...errors import PlanError
from ..strategies.scope_copies import all_layers
from .phase import Phase


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """Every weight of a model, by what a phase may do to it.

    Attributes:
        blocks: The trained blocks, and parts of blocks, in the order of depth.
        trained: What the optimizer moves.
        free: What may move without it, such as statistics that follow the batches.
        frozen: What must not move.
        head: Those of the trained that are not the encoder's.
    """

    blocks: tuple[Block, ...]
    trained: tuple[keras.Variable, ...]
    free: tuple[keras.Variable, ...]
    frozen: tuple[keras.Variable, ...]
    head: tuple[keras.Variable, ...]


def choose(model: keras.Model, phase: Phase) -> Choice:
    """What a phase trains of a model.

    Args:
        model: Any built Keras model.
        phase: The phase.

    Returns:
        The choice; together its `trained`, `free` and `frozen` are `model.weights`.

    Raises:
        PlanError: A pattern matches no block, a number is out of range, a choice needs
            an encoder that is not there, or nothing is left to be trained.
    """
    encoder = find_encoder(model)
    if encoder is None:
        blocks, trained, free = (), _trainable_alone(model, phase), _free_alone(model)
        head = trained
    else:
        blocks = choose_blocks(encoder.blocks, _as_given(phase.train))
        head = _outside(model, encoder)
        trained = [*(v for block in blocks for v in block.learnable), *head]
        free = _free(model, encoder, blocks, phase.batch_norm)
    trained_ids = _ids(trained)
    free_ids = _ids(free) - trained_ids
    if not trained:
        raise PlanError(
            f"{phase!r} trains nothing: the model has nothing outside its encoder that "
            "can be trained. Choose blocks, such as train=1."
        )
    weights = model.weights
    return Choice(
        blocks=tuple(blocks),
        trained=tuple(v for v in weights if id(v) in trained_ids),
        free=tuple(v for v in weights if id(v) in free_ids),
        frozen=tuple(v for v in weights if id(v) not in trained_ids | free_ids),
        head=tuple(head),
    )


def learnable_weights(model: keras.Model) -> tuple[keras.Variable, ...]:
    """Every weight of a model that some phase could train."""
    encoder = find_encoder(model)
    if encoder is None:
        return tuple(model.trainable_weights)
    inside = [v for block in encoder.blocks for v in block.learnable]
    return (*inside, *_outside(model, encoder))


def _as_given(train):
    return list(train) if isinstance(train, tuple) else train


def _ids(variables: Iterable[keras.Variable]) -> set[int]:
    return {id(variable) for variable in variables}


# === Models with an encoder ===


def _outside(model: keras.Model, encoder: Encoder) -> list[keras.Variable]:
    """What `tlkit.freeze` leaves trainable outside the encoder."""
    inside = _ids(encoder.weights)
    thawed = {
        id(variable)
        for layer in _with_layers(model)
        if not layer.trainable
        for inner in all_layers(layer)
        for variable in inner._trainable_variables
    }
    return [
        variable
        for variable in model.weights
        if id(variable) not in inside and (variable.trainable or id(variable) in thawed)
    ]


def _free(model, encoder: Encoder, blocks, batch_norm: str) -> list[keras.Variable]:
    inside = _ids(encoder.weights)
    outside = [v for v in model.weights if id(v) not in inside]
    moving = [
        variable
        for block in blocks
        for part in block.parts or (block,)
        if batch_norm == "train" or not part.batch_norms or not encoder.opened
        for variable in part.variables
    ]
    return [*outside, *moving]


# === Models without one ===


def _trainable_alone(model: keras.Model, phase: Phase) -> list[keras.Variable]:
    if phase.train != "all":
        raise PlanError(
            f"There is no tlkit encoder in this model, so {phase!r} has no meaning. "
            'Use Phase("all"), which trains what the model leaves trainable, or build '
            "the model around tlkit.load_encoder(source)."
        )
    if not model.trainable_weights:
        raise PlanError(
            "The model has nothing that can be trained. Type: model.trainable = True"
        )
    return list(model.trainable_weights)


def _free_alone(model: keras.Model) -> list[keras.Variable]:
    """Statistics of layers that are not frozen themselves."""
    frozen = {
        id(variable)
        for layer in all_layers(model)
        if not layer.trainable
        for variable in layer.weights
    }
    frozen |= {
        id(variable)
        for layer in all_layers(model)
        for variable in layer._trainable_variables
        if not variable.trainable
    }
    return [v for v in model.weights if id(v) not in frozen]


# === Layers ===


def _with_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers whose `trainable` `tlkit.freeze` looks at."""
    children = getattr(layer, "layers", ())
    return [layer, *(x for child in children for x in _with_layers(child))]
