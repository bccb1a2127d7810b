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
from .loop.loss_and_metrics import batch_size, layer_losses


def collect_outputs(
    model: keras.Model,
    feed: Feed,
    *,
    what: str,
    verbose: int = 1,
    with_losses: bool = False,
) -> tuple[Any, Any, Any]:
    """Runs a model in inference over all examples once.

    Args:
        model: The model, or a part of it.
        feed: The examples.
        what: The label of the progress bar, such as `"computing features"`.
        verbose: 0 for silence.
        with_losses: Whether to return pairs of the outputs and the added losses of
            regularization and layers, of which each example has those of its batch.

    Returns:
        Arrays with one entry for each example, in the order of the data: the outputs,
        the labels, and the weights, which are () if there are none.
    """
    order = None
    if feed.lengths is not None:
        order, dataset = feed.longest_first()
    else:
        dataset = feed.batches(None)
    make_function = loss_function if with_losses else inference_function
    run = make_function(model, dataset.element_spec[0])
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
    return _traced(model, spec, lambda model, inputs: model(inputs, training=False))


def loss_function(model: keras.Model, spec: Any) -> Callable[[Any], Any]:
    """Returns a function of inputs that returns a model's outputs and added losses."""
    return _traced(model, spec, _outputs_and_losses)


def _outputs_and_losses(model: keras.Model, inputs: Any) -> tuple[Any, tf.Tensor]:
    outputs = model(inputs, training=False)
    return outputs, tf.repeat(layer_losses(model), batch_size(inputs))


def _traced(model: keras.Model, spec: Any, function: Callable) -> Callable[[Any], Any]:
    functions = _FUNCTIONS.setdefault(model, {})
    key = (function.__name__, repr(spec))
    if key not in functions:
        # A strong reference from this function would keep the model alive forever.
        weak_model = weakref.ref(model)

        @tf.function(input_signature=[spec], autograph=False)
        def run(inputs):
            return function(weak_model(), inputs)

        functions[key] = run
    return functions[key]


_FUNCTIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
