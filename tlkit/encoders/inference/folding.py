"""The frozen network at its best speed: its variables stand in it as constants.

What depends on variables alone is computed once. Batch norms and other scalings of
channels go into the kernels before them, and padding into the convolution behind it.
What is left has the shape in which TensorFlow runs it fastest: a convolution with its
bias, residual sum and activation as one op, whose kernel is laid out once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from ..graph.flat_graph import (
    FlatGraph,
    as_graph_def,
    data_inputs,
    node_of,
    reached,
    tensor_of,
)
from ..graph.graph_runner import import_nodes, run_nodes
from ..graph.random_ops import is_random
from ..graph.tensor_shapes import static_shapes
from ..network.sections import depth_first
from .batch_norms import fold_norms
from .constants import Constants
from .layer_norms import keep_epsilons
from .matrix_products import fold_products
from .pads_and_layer_norms import fold_pads

# TensorFlow serializes a function's graph, constants included, and at most 2 GB. The
# values of a network larger than this are captured: slower, since not laid out once.
# Those of matrix products, too: they gain nothing by being constants, whose copying
# makes the first call of a BERT of 22 million weights 4 seconds longer.
MOST_BYTES = 1_500_000_000
_LAID_OUT_ONCE = {"Conv2D", "DepthwiseConv2dNative"}


def fold(
    graph: FlatGraph, wanted: Sequence[str], *, value_of: Callable[[int], tf.Tensor]
) -> Constants:
    """Folds a graph for inference.

    Args:
        graph: The flat graph.
        wanted: Names of the tensors that are wanted of it.
        value_of: Gives the value of the variable at a position, now.

    Returns:
        The same function of the inputs, but for rounding, with fewer nodes.
    """
    with tf.init_scope():
        names = reached(graph.nodes, wanted, set())
        values = {
            tensor_of(name): tf.convert_to_tensor(value_of(position))
            for name, position in graph.variables.items()
            if name in names
        }
        constants = _with_constants(graph, values, tuple(map(tensor_of, wanted)))
    fold_norms(constants, fold_products(constants, _reshapes(graph, constants)))
    fold_pads(constants)
    keep_epsilons(constants)
    return constants


def _reshapes(graph: FlatGraph, constants: Constants) -> dict[str, tf.TensorShape]:
    names = [node.name for node in constants.needed() if node.op == "Reshape"]
    shapes = static_shapes(graph, [tensor_of(name) for name in names]) if names else []
    return dict(zip(names, shapes, strict=True))


def frozen_function(
    graph: FlatGraph,
    wanted: Sequence[str],
    *,
    value_of: Callable[[int], tf.Tensor],
    resources: Sequence[tf.Tensor] = (),
) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """Makes a function that runs a graph for inference at its best speed.

    Args:
        graph: The flat graph.
        wanted: Names of the tensors that are wanted of it.
        value_of: Gives the value of the variable at a position, now. What becomes of
            the variable afterwards does not reach the function.
        resources: The captured tensors that `graph.resources` point to.

    Returns:
        A `tf.function` from the inputs, flattened, to the wanted tensors. It is
        traced once, whatever the sizes that the graph leaves open.
    """
    constants = fold(graph, wanted, value_of=value_of)
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    definition.node.extend(constants.needed())
    arrays = constants.used_arrays()
    gains = any(node.op in _LAID_OUT_ONCE for node in definition.node)
    large = sum(array.nbytes for array in arrays.values()) > MOST_BYTES
    captured = large or not gains
    with tf.init_scope():
        kept = {n: tf.constant(array) for n, array in arrays.items() if captured}

    def run(inputs):
        # Identity, since an eager handle must be captured by the graph being built.
        tensors = {
            name: tf.identity(kept[name]) if captured else tf.constant(array)
            for name, array in arrays.items()
        }
        tensors |= {tensor_of(n): x for n, x in zip(graph.inputs, inputs, strict=True)}
        tensors |= {
            tensor_of(name): tf.identity(resources[i])
            for name, i in graph.resources.items()
        }
        return import_nodes(definition, tensors, list(constants.wanted))

    return tf.function(run, input_signature=[list(graph.input_specs)], autograph=False)


def _with_constants(
    graph: FlatGraph, values: Mapping[str, tf.Tensor], wanted: tuple[str, ...]
) -> Constants:
    """Computes what depends on variables and constants alone."""
    nodes = {name: graph.nodes[name] for name in depth_first(graph.nodes, wanted)}
    fixed: set[str] = set()
    for name, node in nodes.items():
        parents = {node_of(tensor) for tensor in data_inputs(node)}
        computed = parents and parents <= fixed and not is_random(node.op)
        if computed or node.op == "Const" or name in graph.variables:
            fixed.add(name)
    live = {name: node for name, node in nodes.items() if name not in fixed}
    read = {tensor_of(t) for node in live.values() for t in data_inputs(node)}
    ends = sorted(tensor for tensor in read.union(wanted) if node_of(tensor) in fixed)
    live |= {
        node_of(end): nodes[node_of(end)]
        for end in ends
        if nodes[node_of(end)].op == "Const"
    }
    ends = [end for end in ends if node_of(end) not in live]
    definition = as_graph_def(graph, reached(nodes, ends, set()))
    found = run_nodes(definition, dict(values), ends) if ends else []
    arrays = {end: x.numpy() for end, x in zip(ends, found, strict=True)}
    return Constants(live, arrays, wanted)
