"""Computes a model's outputs for all examples, in memory: features or logits.

Tested in tests/training/test_fitting.py.
"""

import math
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..progress import progress
from .feeds.feed import Feed


def collect_outputs(
    model: keras.Model, feed: Feed, *, what: str, verbose: int = 1
) -> tuple[Any, Any, Any]:
    """Runs a model in inference over all examples once.

    Args:
        model: The model, or a part of it.
        feed: The examples.
        what: The label of the progress bar, such as `"computing features"`.
        verbose: 0 for silence.

    Returns:
        Arrays with one entry for each example, in the order of the data: the outputs,
        the labels, and the weights, which are () if there are none.
    """
    order = None
    if feed.lengths is not None:
        order, dataset = feed.longest_first()
    else:
        dataset = feed.batches(None)
    run = inference_function(model, dataset.element_spec[0])
    total = feed.steps if feed.steps not in (None, math.inf) else None
    batches = [
        tf.nest.map_structure(lambda x: x.numpy(), (run(inputs), labels, weights))
        for inputs, labels, weights in progress(
            dataset, total=total, what=what, verbose=verbose
        )
    ]
    columns = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *batches)
    if order is None:
        return columns
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return tf.nest.map_structure(lambda array: array[positions], columns)


def inference_function(model: keras.Model, spec: Any) -> Callable[[Any], Any]:
    """Returns a function of inputs that runs a model in inference.

    It is traced once for each model and spec.

    Args:
        model: The model.
        spec: The nest of `tf.TensorSpec` of its inputs.
    """
    functions = _FUNCTIONS.setdefault(model, {})
    key = repr(spec)
    if key not in functions:
        # Weak, since the function lives as long as its model is in `_FUNCTIONS`.
        weak_model = weakref.ref(model)

        @tf.function(input_signature=[spec], autograph=False)
        def run(inputs):
            return weak_model()(inputs, training=False)

        functions[key] = run
    return functions[key]


_FUNCTIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
