"""Puts a flat graph into the TensorFlow function that is being traced, to be saved."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from .custom_gradients import MISSING, NAMED, GradientGraph
from .flat_graph import FlatGraph, as_graph_def, reached, tensor_of
from .graph_runner import import_nodes

_LOST = "CustomGradient-lost"
_counter = itertools.count()


def pruned(graph: FlatGraph) -> FlatGraph:
    """The graph without what neither its outputs nor its updates need.

    An encoder that was loaded for one of its outputs still has what makes the others.
    """
    keep = reached(graph.nodes, [*graph.outputs, *graph.updates.values()], set())
    return dataclasses.replace(
        graph,
        nodes={name: graph.nodes[name] for name in keep},
        variables={k: p for k, p in graph.variables.items() if k in keep},
        resources={k: i for k, i in graph.resources.items() if k in keep},
    )


def run_graph(
    graph: FlatGraph,
    inputs: Sequence[tf.Tensor],
    variables: Mapping[int, tf.Variable],
    resources: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], dict[int, tf.Tensor]]:
    """Imports a flat graph into the graph being built.

    Args:
        graph: The flat graph.
        inputs: Its inputs, in their order.
        variables: Its variables by position.
        resources: The captured resources that it may need.

    Returns:
        Its outputs, and the new values of variables by position.
    """
    tensors: dict[str, tf.Tensor] = dict(zip(graph.inputs, inputs, strict=True))
    values = {p: variables[p].read_value() for p in set(graph.variables.values())}
    tensors |= {name: values[position] for name, position in graph.variables.items()}
    tensors |= {n: tf.identity(resources[i]) for n, i in graph.resources.items()}
    if graph.seed:
        # One draw a call; each random op mixes its own key into it.
        limit = tf.int32.max
        tensors[graph.seed] = tf.random.uniform((2,), maxval=limit, dtype=tf.int32)
    definition = as_graph_def(graph, graph.nodes)
    ops = _free_gradients(definition, graph.gradients)
    bound = {tensor_of(name): tensor for name, tensor in tensors.items()}
    wanted = [*graph.outputs, *graph.updates.values(), *(f"{n}:0" for n in ops)]
    found = iter(import_nodes(definition, bound, wanted))
    outputs = [next(found) for _ in graph.outputs]
    updates = {position: next(found) for position in graph.updates}
    for op in ops.values():
        op.append(next(found).op)
    return outputs, updates


def _free_gradients(
    definition: tf.compat.v1.GraphDef, gradients: Mapping[str, GradientGraph]
) -> dict[str, list[Any]]:
    """Gives each node with a custom gradient one that TensorFlow can save, in place.

    TensorFlow saves a gradient by tracing it, and tells it nothing of the op that it
    is for. So each op gets one of its own.

    Returns:
        For each such node an empty list, into which its op has to be put.
    """
    ops: dict[str, list[Any]] = {}
    for node in definition.node:
        name = node.attr[NAMED].s.decode() if NAMED in node.attr else ""
        if name == MISSING:
            # A name that leads nowhere, in this process and the next.
            lost = node.attr["_tlkit_gradient"].s.decode()
            lost = lost if lost.startswith(_LOST) else f"{_LOST}-{lost}"
            node.attr[NAMED].s = lost.encode()
            del node.attr["_tlkit_gradient"]
        elif name in gradients:
            own = f"{name}-{next(_counter)}"
            ops[node.name] = []
            tf.RegisterGradient(own)(_gradient(gradients[name], ops[node.name]))
            node.attr[NAMED].s = own.encode()
    return ops


def _gradient(gradient: GradientGraph, op: list[Any]) -> Callable:
    @tf.autograph.experimental.do_not_convert
    def call(_, *upstream):
        return gradient(op[0], *upstream)

    return call
