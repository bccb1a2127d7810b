"""Selects the weights of a model that a phase trains, without changing the model."""

import dataclasses
from collections.abc import Iterable

import keras

from ...encoders import Block, Encoder, choose_blocks, find_encoder
from ...errors import PlanError
from ..strategies.layer_tree import all_layers
from .phase import Phase


@dataclasses.dataclass(frozen=True)
class TrainableSelection:
    """The weights of a model, grouped by what may change them in a phase.

    Weights are given by their positions in `model.weights`, so a selection also holds
    for a copy of the model in a strategy's scope. Each position is in exactly one of
    `trained`, `free` and `frozen`.

    Attributes:
        blocks: Names of the trained blocks and parts of blocks, by depth.
        trained: Weights that the optimizer updates.
        free: Weights that may change without the optimizer, such as the statistics of
            batch norms.
        frozen: Weights that must not change.
        head: The trained weights outside the encoder.
    """

    blocks: tuple[str, ...]
    trained: tuple[int, ...]
    free: tuple[int, ...]
    frozen: tuple[int, ...]
    head: tuple[int, ...]


def weights_at(
    model: keras.Model, positions: Iterable[int]
) -> tuple[keras.Variable, ...]:
    """Returns the weights of a model at positions in `model.weights`."""
    weights = model.weights
    return tuple(weights[position] for position in positions)


def select_trainable(model: keras.Model, phase: Phase) -> TrainableSelection:
    """Selects the weights that a phase trains.

    Args:
        model: Any built Keras model.
        phase: The phase.

    Raises:
        PlanError: A pattern matches no block, a number is out of range, the phase needs
            an encoder and the model has none, or no weight is left to train.
    """
    encoder = find_encoder(model)
    if encoder is None:
        blocks, trained, free = (), _trainable_weights(model, phase), _unfrozen(model)
        head = trained
    else:
        patterns = list(phase.train) if isinstance(phase.train, tuple) else phase.train
        blocks = choose_blocks(encoder.blocks, patterns)
        head = _learnable_outside(model, encoder)
        trained = [*(v for block in blocks for v in block.learnable), *head]
        free = _free_weights(model, encoder, blocks, phase.batch_norm)
    if not trained:
        raise PlanError(
            f"{phase!r} trains nothing: the model has no trainable weights outside its "
            "encoder. Choose blocks, such as train=1."
        )
    trained_ids, weights = _ids(trained), model.weights
    free_ids = _ids(free) - trained_ids

    def positions_of(ids: set[int]) -> tuple[int, ...]:
        return tuple(i for i, weight in enumerate(weights) if id(weight) in ids)

    return TrainableSelection(
        blocks=tuple(block.name for block in blocks),
        trained=positions_of(trained_ids),
        free=positions_of(free_ids),
        frozen=positions_of(_ids(weights) - trained_ids - free_ids),
        head=positions_of(_ids(head)),
    )


def learnable_weights(model: keras.Model) -> tuple[keras.Variable, ...]:
    """Returns every weight of a model that some phase could train."""
    encoder = find_encoder(model)
    if encoder is None:
        return tuple(model.trainable_weights)
    inside = [v for block in encoder.blocks for v in block.learnable]
    return (*inside, *_learnable_outside(model, encoder))


def _ids(variables: Iterable[keras.Variable]) -> set[int]:
    return {id(variable) for variable in variables}


# === Models with an encoder ===


def _learnable_outside(model: keras.Model, encoder: Encoder) -> list[keras.Variable]:
    """Returns the weights outside the encoder that `tlkit.freeze` makes trainable."""
    inside = _ids(encoder.weights)
    unfrozen = {
        id(variable)
        for layer in _nested_layers(model)
        if not layer.trainable
        for inner in all_layers(layer)
        # Private: the public list is empty while the layer is frozen (Keras 3.13 to
        # 3.15). tests/training/plans/test_trainable_selection.py notices a change.
        for variable in inner._trainable_variables
    }
    return [
        variable
        for variable in model.weights
        if id(variable) not in inside
        and (variable.trainable or id(variable) in unfrozen)
    ]


def _free_weights(
    model: keras.Model, encoder: Encoder, blocks: Iterable[Block], batch_norm: str
) -> list[keras.Variable]:
    """Returns the weights outside the encoder, and those of blocks in training mode."""
    inside = _ids(encoder.weights)
    outside = [v for v in model.weights if id(v) not in inside]
    in_training_mode = [
        variable
        for block in blocks
        for part in block.parts or (block,)
        if batch_norm == "train" or not part.batch_norms or not encoder.opened
        for variable in part.variables
    ]
    return [*outside, *in_training_mode]


def _nested_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers whose `trainable` `tlkit.freeze` writes."""
    children = getattr(layer, "layers", ())
    return [layer, *(x for child in children for x in _nested_layers(child))]


# === Models without an encoder ===


def _trainable_weights(model: keras.Model, phase: Phase) -> list[keras.Variable]:
    if phase.train != "all":
        raise PlanError(
            f"There is no tlkit encoder in this model, so {phase!r} has no meaning. "
            'Use Phase("all"), which trains the weights that the model leaves '
            "trainable, or build the model around tlkit.load_encoder(source)."
        )
    if not model.trainable_weights:
        raise PlanError(
            "The model has no trainable weights. Type: model.trainable = True"
        )
    return list(model.trainable_weights)


def _unfrozen(model: keras.Model) -> list[keras.Variable]:
    """Returns weights that neither a layer's `trainable` nor their own freezes."""
    layers = all_layers(model)
    frozen = {id(v) for layer in layers if not layer.trainable for v in layer.weights}
    frozen |= {
        id(variable)
        for layer in layers
        for variable in layer._trainable_variables  # see `_learnable_outside`
        if not variable.trainable
    }
    return [v for v in model.weights if id(v) not in frozen]
