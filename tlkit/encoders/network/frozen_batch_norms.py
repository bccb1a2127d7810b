"""Batch norms that keep to their running statistics in the graph for training.

A trained block whose batch norms stay frozen still wants the dropout of training. So
in a copy of the training graph each batch statistic gives way to the running average
that it would have gone into: the average's own update says which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from ..graph.flat_graph import (
    SHAPE_LIKE,
    FlatGraph,
    attribute,
    constant,
    data_inputs,
    make_node,
    node_of,
    tensor_of,
    type_attribute,
)
from ..graph.tensor_shapes import static_shapes
from .sections import depth_first

# What an average is computed with: no statistic is made of these alone.
ARITHMETIC = {"Add", "AddV2", "Sub", "Mul", "Neg", "RealDiv", "Cast", "Reshape"}
ARITHMETIC |= {"Identity", "Squeeze", "StopGradient", "Select", "SelectV2"}


def with_running_statistics(graph: FlatGraph) -> tuple[FlatGraph, frozenset[int]]:
    """A graph for training whose batch norms run as in inference.

    Args:
        graph: The graph for training.

    Returns:
        The graph, without the updates of what is now frozen, and the positions of the
        running averages that stand where the batch's statistics stood. An average
        whose update is not understood is not among them, and stays as it was.
    """
    averages = {position: name for name, position in graph.variables.items()}
    valued = _carries_input(graph)
    found: dict[str, tuple[int, str]] = {}
    for position, update in graph.updates.items():
        average = averages.get(position)
        if average and graph.value_specs[average].dtype.is_floating:
            statistic = _statistic(graph, update, valued)
            if statistic and statistic not in found:
                found[statistic] = (position, average)
    nodes = dict(graph.nodes)
    frozen = _freeze_fused(nodes, found)
    others = {s: found[s] for s in found if not _fused(graph.nodes, s)}
    frozen |= _freeze_others(graph, nodes, others)
    updates = {k: v for k, v in graph.updates.items() if k not in frozen}
    return dataclasses.replace(graph, nodes=nodes, updates=updates), frozenset(frozen)


def _statistic(graph: FlatGraph, update: str, valued: Mapping[str, bool]) -> str | None:
    """The one tensor with values of the batch that goes into an average."""
    found, stack, seen = set(), [update], set()
    while stack:
        tensor = stack.pop()
        name = node_of(tensor)
        if name in seen or not valued.get(name):
            continue
        if graph.nodes[name].op in ARITHMETIC:
            seen.add(name)
            stack.extend(data_inputs(graph.nodes[name]))
        else:
            found.add(tensor_of(tensor))
    return found.pop() if len(found) == 1 else None


def _carries_input(graph: FlatGraph) -> Mapping[str, bool]:
    """Whether each node carries values, not only shapes, of the inputs."""
    valued: dict[str, bool] = {}
    for name in depth_first(graph.nodes, [*graph.outputs, *graph.updates.values()]):
        node = graph.nodes[name]
        parents = (valued[node_of(tensor)] for tensor in data_inputs(node))
        valued[name] = name in graph.inputs or (
            node.op not in SHAPE_LIKE and any(parents)
        )
    return valued


def _fused(nodes: Mapping, tensor: str) -> bool:
    return nodes[node_of(tensor)].op.startswith("FusedBatchNorm")


def _freeze_fused(nodes: dict, found: Mapping[str, tuple[int, str]]) -> set[int]:
    frozen: set[int] = set()
    for name in {node_of(s) for s in found if _fused(nodes, s)}:
        pair = [found.get(f"{name}:{k}") for k in (1, 2)]
        if None in pair or not nodes[name].attr["is_training"].b:
            continue
        node = tf.compat.v1.NodeDef()
        node.CopyFrom(nodes[name])
        node.attr["is_training"].CopyFrom(attribute(b=False))
        node.attr["exponential_avg_factor"].CopyFrom(attribute(f=1.0))
        node.input[3], node.input[4] = (tensor_of(average) for _, average in pair)
        nodes[name] = node
        frozen |= {position for position, _ in pair}
    return frozen


def _freeze_others(graph: FlatGraph, nodes: dict, found) -> set[int]:
    """Lets whoever reads a statistic read the average, in the statistic's shape."""
    frozen: set[int] = set()
    shapes = static_shapes(graph, list(found)) if found else []
    moved: dict[str, str] = {}
    for (statistic, (position, average)), shape in zip(
        found.items(), shapes, strict=True
    ):
        size = graph.value_specs[average].shape.num_elements()
        if not shape.is_fully_defined() or shape.num_elements() != size:
            continue
        name = f"{node_of(statistic)}/running"
        wanted = constant(f"{name}/shape", shape.as_list(), tf.int32)
        nodes[wanted.name] = wanted
        types = {"T": type_attribute(graph.value_specs[average].dtype)}
        types["Tshape"] = type_attribute(tf.int32)
        nodes[name] = make_node(name, "Reshape", [average, wanted.name], **types)
        moved[statistic] = tensor_of(name)
        frozen.add(position)
    for name in list(graph.nodes):
        _redirect(nodes, name, moved)
    return frozen


def _redirect(nodes: dict, name: str, moved: Mapping[str, str]) -> None:
    if any(tensor_of(tensor) in moved for tensor in data_inputs(nodes[name])):
        node = tf.compat.v1.NodeDef()
        node.CopyFrom(nodes[name])
        for i, tensor in enumerate(node.input):
            node.input[i] = moved.get(tensor_of(tensor), tensor)
        nodes[name] = node
