"""The inference of an opened encoder with constant weights, as fast as possible.

`fold` rewrites the inference graph:

1. It replaces tensors that depend only on variables and constants by their values.
2. It turns products with constant kernels into matrix products.
3. It folds batch norms and other scalings of channels into the kernels before them.
4. It folds padding into the convolutions after it.

The result has the form that TensorFlow runs fastest: a convolution with its bias,
residual sum and activation is one op, whose kernel is rearranged in memory only once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..graph.flat_graph import (
    FlatGraph,
    as_graph_def,
    data_inputs,
    needed_nodes,
    node_of,
    tensor_of,
    topological_order,
)
from ..graph.graph_runner import import_nodes, run_nodes
from ..graph.random_ops import is_random
from ..graph.tensor_shapes import static_shapes
from ..input_check import cast_inputs
from .batch_norms import fold_batch_norms
from .folded_graph import FoldedGraph
from .matrix_products import fold_products
from .pads_and_layer_norms import fold_pads, keep_epsilons

if TYPE_CHECKING:
    from ..opened_encoder import OpenedEncoder

# TensorFlow serializes the graph of a function with its constants, and the result must
# not exceed 2 GB. The function of a larger network captures the weights as tensors
# instead, which is slower: kernels are then rearranged in every call.
MOST_BYTES = 1_500_000_000

# Ops that run faster with constant kernels. In a network without these ops, weights are
# captured tensors: constants make matrix products no faster, but the first call of a
# BERT with 22 million weights 4 seconds longer, since they are copied.
_GAIN_FROM_CONSTANTS = {"Conv2D", "DepthwiseConv2dNative"}


@dataclasses.dataclass(frozen=True)
class ForwardResults:
    """The tensors that a `FrozenForward` computes for a batch.

    Args:
        cuts: The tensors before sections, by the index of the section.
        outputs: The encoder's outputs; `None` if they were not requested.
    """

    cuts: dict[int, tf.Tensor]
    outputs: Any


class FrozenForward:
    """Runs an opened encoder in inference mode with constant weights, fast.

    The constants are computed from the weights at construction. Later changes of the
    weights have no effect, so make a new object after training. The constants need as
    much memory again as the weights. Calls work eagerly and in graphs, such as those of
    `tf.data` and `tf.function`. The encoder's weights get no gradients from them.

    Args:
        encoder: An opened encoder.
        cuts: Indices of sections, from 1 on; the input tensor of each is returned.
        outputs: Whether to return the encoder's outputs. If `False`, the sections after
            the last cut do not run.

    Raises:
        ValueError: A cut does not exist, or neither cuts nor outputs are requested.

    Example:

    >>> forward = FrozenForward(encoder, [3])
    >>> results = forward(images)
    >>> results.cuts[3].shape, results.outputs.shape
    (TensorShape([8, 28, 28, 512]), TensorShape([8, 2048]))
    """

    def __init__(
        self, encoder: OpenedEncoder, cuts: Sequence[int] = (), *, outputs: bool = True
    ):
        network = encoder.network
        count = len(network.sections)
        if not (cuts or outputs) or not all(0 < i < count for i in cuts):
            raise ValueError(
                f"Cuts must be from 1 to {count - 1}, and a cut or the outputs must be "
                f"wanted. Received: cuts={list(cuts)}, outputs={outputs}"
            )
        self.cuts = tuple(sorted(set(cuts)))
        self._inputs, self._outputs = encoder.inputs_spec, encoder.outputs_spec
        self._returns_outputs = outputs
        graph = network.graphs[False]
        # A section begins at the cut of the section before it.
        names = [network.sections[i - 1].inference.cut for i in self.cuts]
        names += graph.outputs if outputs else ()
        self._function = frozen_function(
            graph, names, value_of=encoder._value, resources=network.resources
        )
        self._owner = network.owner  # keeps the resources alive

    def __call__(self, inputs: Any) -> ForwardResults:
        """Computes the requested tensors for a batch of any size."""
        results = self._function(cast_inputs(self._inputs, inputs))
        cuts = dict(zip(self.cuts, results, strict=False))
        outputs = None
        if self._returns_outputs:
            flat = results[len(self.cuts) :]
            outputs = tf.nest.pack_sequence_as(self._outputs, flat)
        return ForwardResults(cuts, outputs)


def frozen_function(
    graph: FlatGraph,
    outputs: Sequence[str],
    *,
    value_of: Callable[[int], tf.Tensor],
    resources: Sequence[tf.Tensor] = (),
) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """Makes a function that computes tensors of an inference graph, fast.

    Args:
        graph: The flat graph.
        outputs: Names of the tensors to return.
        value_of: Returns the value of the variable at a position. It is called now;
            later changes of the variables have no effect.
        resources: The captured tensors that `graph.resources` refers to.

    Returns:
        A `tf.function` from the flattened inputs to these tensors. It is traced once
        for all sizes of the inputs' unknown dimensions.
    """
    folded = fold(graph, outputs, value_of=value_of)
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    definition.node.extend(folded.needed())
    arrays = folded.used_arrays()
    gains = any(node.op in _GAIN_FROM_CONSTANTS for node in definition.node)
    too_large = sum(array.nbytes for array in arrays.values()) > MOST_BYTES
    captured: dict[str, tf.Tensor] = {}
    if too_large or not gains:
        with tf.init_scope():
            captured = {name: tf.constant(array) for name, array in arrays.items()}

    def run(inputs):
        # `tf.identity` makes the graph that is being built capture the eager tensor.
        constants = {
            name: tf.identity(captured[name]) if captured else tf.constant(array)
            for name, array in arrays.items()
        }
        feeds = constants | graph.feeds(inputs, {}, resources)
        return import_nodes(definition, feeds, folded.outputs)

    return tf.function(run, input_signature=[list(graph.input_specs)], autograph=False)


def fold(
    graph: FlatGraph, outputs: Sequence[str], *, value_of: Callable[[int], tf.Tensor]
) -> FoldedGraph:
    """Rewrites a graph into one with fewer nodes and equal results up to rounding.

    Args:
        graph: The flat graph.
        outputs: Names of the tensors that it must still compute.
        value_of: Returns the current value of the variable at a position.
    """
    with tf.init_scope():
        needed = needed_nodes(graph.nodes, outputs)
        values = {
            tensor_of(name): tf.convert_to_tensor(value_of(position))
            for name, position in graph.variables.items()
            if name in needed
        }
        folded = _with_constants(graph, values, tuple(map(tensor_of, outputs)))
    splits = fold_products(folded, _reshape_shapes(graph, folded))
    fold_batch_norms(folded, splits)
    fold_pads(folded)
    keep_epsilons(folded)
    return folded


def _with_constants(
    graph: FlatGraph, values: Mapping[str, tf.Tensor], outputs: tuple[str, ...]
) -> FoldedGraph:
    """Replaces tensors that depend only on variables and constants by their values."""
    order = topological_order(graph.nodes, outputs)
    nodes = {name: graph.nodes[name] for name in order}
    fixed: set[str] = set()
    for name, node in nodes.items():
        parents = {node_of(tensor) for tensor in data_inputs(node)}
        computed = parents and parents <= fixed and not is_random(node.op)
        if computed or node.op == "Const" or name in graph.variables:
            fixed.add(name)
    live = {name: node for name, node in nodes.items() if name not in fixed}
    used = {tensor_of(t) for node in live.values() for t in data_inputs(node)}
    used = {tensor for tensor in used.union(outputs) if node_of(tensor) in fixed}
    constants = {node_of(t) for t in used if nodes[node_of(t)].op == "Const"}
    live |= {name: nodes[name] for name in constants}
    ends = sorted(tensor for tensor in used if node_of(tensor) not in constants)
    definition = as_graph_def(graph, needed_nodes(nodes, ends))
    results = run_nodes(definition, dict(values), ends) if ends else []
    arrays = {end: x.numpy() for end, x in zip(ends, results, strict=True)}
    return FoldedGraph(live, arrays, outputs)


def _reshape_shapes(graph: FlatGraph, folded: FoldedGraph) -> dict[str, tf.TensorShape]:
    names = [node.name for node in folded.needed() if node.op == "Reshape"]
    shapes = static_shapes(graph, [tensor_of(name) for name in names]) if names else []
    return dict(zip(names, shapes, strict=True))
