"""Writes a network as a SavedModel with TF Hub's reusable interface.

Tested in tests/samples/test_sample_encoders.py.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Variables = dict[str, tf.Variable]


def make_variables(
    tensors: Mapping[str, np.ndarray], *, frozen: tuple[str, ...] = ()
) -> Variables:
    """Creates a float32 variable from each array, named by its key.

    Args:
        tensors: Arrays by the name of the variable.
        frozen: Suffixes of the names of variables that are not trainable.
    """
    return {
        name: tf.Variable(
            np.asarray(value, np.float32),
            name=name,
            trainable=not name.endswith(frozen) if frozen else True,
        )
        for name, value in tensors.items()
    }


class _Reusable(tf.Module):
    """A tf.Module whose lists of variables are attributes, which a SavedModel stores.

    A tf.train.Checkpoint would add a variable to those of the network.
    """

    variables = trainable_variables = ()


def save_reusable(
    folder: pathlib.Path,
    forward: Callable[[Variables, Any, bool], Any],
    variables: Variables,
    *,
    inputs: Any,
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Writes a SavedModel with `__call__(inputs, training=False)` and variable lists.

    https://www.tensorflow.org/hub/reusable_saved_models

    Args:
        folder: The SavedModel's folder.
        forward: Computes the outputs from the variables, the inputs and `training`.
        variables: The network's variables, by name.
        inputs: `tf.TensorSpec`, or a dict of them.
        extras: More attributes of the saved object; variables among them are added to
            its `variables`.
    """

    @tf.function(autograph=False)
    def call(inputs: Any, training: bool = False) -> Any:
        return forward(variables, inputs, training)

    for training in (False, True):
        call.get_concrete_function(inputs, training)

    root = _Reusable()
    listed = list(variables.values())
    for name, value in (extras or {}).items():
        setattr(root, name, value)
        listed += [value] if isinstance(value, tf.Variable) else []
    root.__call__ = call
    root.variables = listed
    root.trainable_variables = [value for value in listed if value.trainable]
    root.regularization_losses = []
    tf.saved_model.save(root, str(folder))
