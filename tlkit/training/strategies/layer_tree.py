"""The layers inside a layer.

Tested in tests/training/strategies/test_scope_copies.py.
"""

import keras


def all_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns a layer and all layers in it; one that is used twice occurs twice."""
    return [layer, *(x for child in child_layers(layer) for x in all_layers(child))]


def child_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Returns the layers directly inside a layer, except input layers."""
    # Private, and the only list of the layers inside a layer (Keras 3.13 to 3.15;
    # test_there_and_back). Input layers are left out, since whether a Sequential model
    # has one depends on how it was built.
    children = layer._flatten_layers(recursive=False, include_self=False)
    return [x for x in children if not isinstance(x, keras.layers.InputLayer)]
