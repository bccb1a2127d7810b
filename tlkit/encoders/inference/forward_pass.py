"""An opened encoder as a function whose weights are constants.

The frozen network at its best speed: its variables stand in it as constants.

What depends on variables alone is computed once. Batch norms and other scalings of
channels go into the kernels before them, and padding into the convolution behind it.
What is left has the shape in which TensorFlow runs it fastest: a convolution with its
bias, residual sum and activation as one op, whose kernel is laid out once.
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
    node_of,
    reached,
    tensor_of,
)
from ..graph.graph_runner import import_nodes, run_nodes
from ..graph.random_ops import is_random
from ..graph.tensor_shapes import static_shapes
from ..input_check import cast_inputs
from ..network.sections import depth_first
from .batch_norms import fold_norms
from .constants import Constants
from .matrix_products import fold_products
from .pads_and_layer_norms import fold_pads, keep_epsilons

if TYPE_CHECKING:
    from ..opened_encoder import OpenedEncoder


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a frozen encoder gives of a batch.

    Args:
        cuts: The tensors at the beginnings of sections, by the index of the section.
        outputs: The encoder's outputs; `None` if they were not wanted.
    """

    cuts: dict[int, tf.Tensor]
    outputs: Any


class FrozenForward:
    """An opened encoder for inference at its best speed: its weights are constants.

    It holds the values that the weights had when it was made, folded into each other:
    what becomes of the weights afterwards does not reach it, so make another one then.
    That is as much memory again as the weights take. It runs eagerly and within graphs,
    such as those of `tf.data` and `tf.function`. The weights get no gradients from it.

    Args:
        encoder: An opened encoder.
        cuts: Indices of the sections at whose beginning the tensor is wanted, from 1
            on.
        outputs: Whether the encoder's outputs are wanted. Without them, nothing behind
            the last cut is run.

    Raises:
        ValueError: There is no such cut, or nothing is wanted.

    Example:

    >>> forward = FrozenForward(encoder, [3])
    >>> found = forward(images)
    >>> found.cuts[3].shape, found.outputs.shape
    """

    def __init__(
        self, encoder: OpenedEncoder, cuts: Sequence[int] = (), *, outputs: bool = True
    ):
        network = encoder.network
        self._check(cuts, outputs, len(network.sections))
        self.cuts = tuple(sorted(set(cuts)))
        self._inputs, self._outputs = encoder.inputs_spec, encoder.outputs_spec
        self._wants_outputs = outputs
        graph = network.graphs[False]
        # A section begins where the one before it stops.
        wanted = [network.sections[i - 1].stops[False] for i in self.cuts]
        wanted += graph.outputs if outputs else ()
        self._function = frozen_function(
            graph, wanted, value_of=encoder._value, resources=network.resources
        )
        self._owner = network.owner  # of the resources, to be kept alive

    def _check(self, cuts: Sequence[int], outputs: bool, count: int) -> None:
        if not (cuts or outputs) or not all(0 < i < count for i in cuts):
            raise ValueError(
                f"Cuts must be from 1 to {count - 1}, and a cut or the outputs must be "
                f"wanted. Received: cuts={list(cuts)}, outputs={outputs}"
            )

    def __call__(self, inputs: Any) -> Frozen:
        """Runs the encoder.

        Args:
            inputs: A batch of any size, in the nest that the encoder takes.

        Returns:
            The tensors that are wanted.
        """
        found = self._function(cast_inputs(self._inputs, inputs))
        outputs = found[len(self.cuts) :]
        if self._wants_outputs:
            outputs = tf.nest.pack_sequence_as(self._outputs, outputs)
        return Frozen(
            dict(zip(self.cuts, found, strict=False)),
            outputs if self._wants_outputs else None,
        )


# === Folding ===

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
