"""A training graph whose batch norms use their running statistics.

A trained block with frozen batch norms still needs dropout, which only the training
graph has. So in a copy of the training graph each batch statistic is replaced by the
running average that it updates. The graph's updates show which statistic updates which
average.
"""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from ..graph.flat_graph import (
    SHAPE_OPS,
    FlatGraph,
    add_constant,
    add_node,
    copy_node,
    data_inputs,
    node_of,
    tensor_of,
    topological_order,
)
from ..graph.tensor_shapes import static_shapes

# Ops that combine a statistic with its average; none of them computes a statistic.
_ARITHMETIC = {"Add", "AddV2", "Sub", "Mul", "Neg", "RealDiv", "Cast", "Reshape"}
_ARITHMETIC |= {"Identity", "Squeeze", "StopGradient", "Select", "SelectV2"}

# Position and placeholder of the running average, by the tensor of the batch statistic.
_Averages = Mapping[str, tuple[int, str]]


def with_running_statistics(graph: FlatGraph) -> tuple[FlatGraph, frozenset[int]]:
    """Makes the batch norms of a training graph run as in inference.

    Args:
        graph: The training graph.

    Returns:
        The graph without the updates of frozen averages, and the positions of these
        averages. An average whose batch statistic cannot be identified is not frozen:
        it is updated as before.
    """
    averages = _find_averages(graph)
    nodes = dict(graph.nodes)
    frozen = _freeze_fused(nodes, averages)
    others = {s: averages[s] for s in averages if not _is_fused(graph.nodes, s)}
    frozen |= _freeze_others(graph, nodes, others)
    updates = {k: v for k, v in graph.updates.items() if k not in frozen}
    return dataclasses.replace(graph, nodes=nodes, updates=updates), frozenset(frozen)


def _find_averages(graph: FlatGraph) -> _Averages:
    placeholders = {position: name for name, position in graph.variables.items()}
    carries_values = _carries_values(graph)
    averages: dict[str, tuple[int, str]] = {}
    for position, update in graph.updates.items():
        placeholder = placeholders.get(position)
        if placeholder and graph.value_specs[placeholder].dtype.is_floating:
            statistic = _statistic(graph, update, carries_values)
            if statistic:
                averages.setdefault(statistic, (position, placeholder))
    return averages


def _statistic(
    graph: FlatGraph, update: str, carries_values: Mapping[str, bool]
) -> str | None:
    """Returns the batch statistic that an update uses, if it uses exactly one."""
    statistics, stack, seen = set(), [update], set()
    while stack:
        tensor = stack.pop()
        name = node_of(tensor)
        if name in seen or not carries_values.get(name):
            continue
        if graph.nodes[name].op in _ARITHMETIC:
            seen.add(name)
            stack.extend(data_inputs(graph.nodes[name]))
        else:
            statistics.add(tensor_of(tensor))
    return statistics.pop() if len(statistics) == 1 else None


def _carries_values(graph: FlatGraph) -> Mapping[str, bool]:
    """Tells for each node whether it depends on the inputs' values, not only shapes."""
    carries: dict[str, bool] = {}
    ends = [*graph.outputs, *graph.updates.values()]
    for name in topological_order(graph.nodes, ends):
        node = graph.nodes[name]
        parents = (carries[node_of(tensor)] for tensor in data_inputs(node))
        carries[name] = name in graph.inputs or (
            node.op not in SHAPE_OPS and any(parents)
        )
    return carries


def _is_fused(nodes: Mapping, tensor: str) -> bool:
    return nodes[node_of(tensor)].op.startswith("FusedBatchNorm")


def _freeze_fused(nodes: dict, averages: _Averages) -> set[int]:
    """Switches fused batch norms to inference; returns positions of their averages."""
    frozen: set[int] = set()
    for name in {node_of(s) for s in averages if _is_fused(nodes, s)}:
        pair = [averages.get(f"{name}:{k}") for k in (1, 2)]  # mean and variance
        if None in pair or not nodes[name].attr["is_training"].b:
            continue
        node = copy_node(nodes[name])
        node.attr["is_training"].b = False
        node.attr["exponential_avg_factor"].f = 1.0
        node.input[3], node.input[4] = (tensor_of(average) for _, average in pair)
        nodes[name] = node
        frozen |= {position for position, _ in pair}
    return frozen


def _freeze_others(graph: FlatGraph, nodes: dict, averages: _Averages) -> set[int]:
    """Replaces the batch statistics of unfused batch norms by their running averages.

    Returns the positions of these averages.
    """
    frozen: set[int] = set()
    shapes = static_shapes(graph, list(averages)) if averages else []
    replaced: dict[str, str] = {}
    for (statistic, (position, average)), shape in zip(
        averages.items(), shapes, strict=True
    ):
        size = graph.value_specs[average].shape.num_elements()
        if not shape.is_fully_defined() or shape.num_elements() != size:
            continue
        name = f"{node_of(statistic)}/running"
        target = add_constant(nodes, f"{name}/shape", shape.as_list(), tf.int32)
        types = {"T": graph.value_specs[average].dtype, "Tshape": tf.int32}
        add_node(nodes, name, "Reshape", [average, target], **types)
        replaced[statistic] = tensor_of(name)
        frozen.add(position)
    for name in graph.nodes:
        if any(tensor_of(t) in replaced for t in data_inputs(nodes[name])):
            nodes[name] = copy_node(nodes[name])
            for i, tensor in enumerate(nodes[name].input):
                nodes[name].input[i] = replaced.get(tensor_of(tensor), tensor)
    return frozen
