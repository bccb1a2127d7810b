"""A model's outputs for every example, in memory: features, logits."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..progress import progress
from .feeds.feed import Feed


def collect(
    model: keras.Model, feed: Feed, *, what: str, verbose: int = 1
) -> tuple[Any, Any, Any]:
    """Runs a model over all examples once, as in inference.

    Args:
        model: The model, or a part of it.
        feed: The examples.
        what: What this is, for the progress bar, such as `"computing features"`.
        verbose: 0 for silence.

    Returns:
        Arrays with one entry for each example, in the order of the data: the outputs,
        the labels, and the weights, which are () if there are none.
    """
    order, dataset = None, None
    if feed.by_size is not None:
        order, dataset = feed.by_size()
    dataset = feed.batches(None) if dataset is None else dataset

    run = inference(model, dataset.element_spec[0])
    total = feed.steps if feed.steps not in (None, math.inf) else None
    parts = [
        (_numpy(run(inputs)), _numpy(labels), _numpy(weights))
        for inputs, labels, weights in progress(
            dataset, total=total, what=what, verbose=verbose
        )
    ]
    merged = tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    return merged if order is None else _in_first_order(merged, order)


def inference(model: keras.Model, spec: Any) -> Callable[[Any], Any]:
    """The function that runs a model as in inference, traced once for each spec.

    Args:
        model: The model.
        spec: The nest of `tf.TensorSpec` of its inputs.

    Returns:
        A function of the inputs.
    """
    functions = _FUNCTIONS.setdefault(model, {})
    key = repr(spec)
    if key not in functions:
        # A strong reference from the function would keep the model for ever.
        found = weakref.ref(model)

        @tf.function(input_signature=[spec], autograph=False)
        def run(inputs):
            return found()(inputs, training=False)

        functions[key] = run
    return functions[key]


_FUNCTIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _numpy(nest):
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), nest)


def _in_first_order(merged, order: np.ndarray):
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return tf.nest.map_structure(lambda array: array[places], merged)
