"""Takes models apart that `tlkit` built."""

from __future__ import annotations

import keras

from ..tasks import Classification
from .heads import Head


def head_of(model: keras.Model) -> Head | None:
    """The head of a model that `tlkit` built; `None` for others."""
    layers = getattr(model, "layers", ())
    heads = [layer for layer in layers if isinstance(layer, Head)]
    return heads[0] if len(heads) == 1 else None


def task_of(model: keras.Model) -> Classification | None:
    """The task of a model that `tlkit` built; `None` for others."""
    head = head_of(model)
    return head.task if head is not None else None


def split(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """The model up to its features, and from its features on.

    Args:
        model: A model that `tlkit` built.

    Returns:
        Two models that share the layers of `model`: inputs to features `[batch, d]`,
        and features to outputs. `None` for other models.
    """
    head = head_of(model)
    if head is None:
        return None
    features = head.input
    trunk = keras.Model(model.input, features, name="trunk")
    again = keras.Input(features.shape[1:], dtype=features.dtype, name="features")
    return trunk, keras.Model(again, head(again), name="top")
