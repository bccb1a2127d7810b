"""Cuts the two graphs of a network into the same sections.

The *path* consists of the nodes whose values depend on both the input and variables. A
*cut* is a point of the path where a single tensor passes. A tensor that depends on the
input alone (an attention mask) or on variables alone (a transposed kernel) may cross a
cut, since it can be recomputed on the other side.

1. `find_sections` cuts one graph, from the input to the output.
2. `match_sections` keeps the cuts that the inference graph and the training graph have
   in common, since each section may run from either graph. Between the graphs, node
   names differ, and so do the nodes around dropout and batch norm. The variables that
   are read before a cut are the same in both graphs, so they identify the cut.

Tested in tests/encoders/test_forms.py.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Collection, Mapping, Sequence

from ..graph.flat_graph import (
    FlatGraph,
    data_inputs,
    node_of,
    tensor_of,
    topological_order,
)
from ..graph.random_ops import is_random

_MOST_OUTPUTS = 8  # further outputs of a node are ignored


@dataclasses.dataclass(frozen=True)
class GraphSection:
    """A section of one flat graph, between two cuts.

    Args:
        cut: The tensor at its end; `None` for the last section of the graph.
        variables: Positions of the variables that the section reads.
        nodes: Names of its nodes on the path.
        tap_candidates: The tensors after the section's last variable at which the graph
            could be cut, by depth; for the last section also its last tensor.
    """

    cut: str | None
    variables: frozenset[int]
    nodes: frozenset[str]
    tap_candidates: tuple[str, ...]

    def __add__(self, following: GraphSection) -> GraphSection:
        """Joins two consecutive sections of the same graph into one."""
        candidates = following.tap_candidates
        if not following.variables:
            candidates = self.tap_candidates + candidates
        variables = self.variables | following.variables
        nodes = self.nodes | following.nodes
        return GraphSection(following.cut, variables, nodes, candidates)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a network, between two cuts that exist in both of its graphs."""

    inference: GraphSection
    training: GraphSection

    def graph(self, training: bool) -> GraphSection:
        """Returns the section of the training graph or of the inference graph."""
        return self.training if training else self.inference

    @property
    def variables(self) -> frozenset[int]:
        """Returns the positions of the variables that either graph reads in it."""
        return self.inference.variables | self.training.variables


def find_sections(graph: FlatGraph) -> list[GraphSection]:
    """Cuts a flat graph into as many sections as possible.

    No variable is read on both sides of a cut. So layers that share a variable (all
    layers of an ALBERT) are in one section. Among several possible cuts before the next
    variable, the last one is taken: it is the same in the training graph and in the
    inference graph.

    Returns:
        The sections in order of depth.
    """
    path, variables_at = _path(graph)
    last_use = _last_uses(graph, path)
    last_read = {v: i for i, name in enumerate(path) for v in variables_at[name]}
    sections: list[GraphSection] = []
    live: set[str] = set()  # tensors that later nodes of the path read
    uncut_until, begin = -1, 0
    for i, name in enumerate(path):
        uncut_until = max([uncut_until, *(last_read[v] for v in variables_at[name])])
        live |= set(_outputs_in_use(name, last_use))
        live = {tensor for tensor in live if last_use[tensor] > i}
        at_end = i == len(path) - 1
        if (len(live) == 1 and uncut_until <= i) or at_end:
            nodes = path[begin : i + 1]
            variables = frozenset().union(*(variables_at[name] for name in nodes))
            cut = next(iter(live), None)
            candidates = (cut or tensor_of(name),)
            section = GraphSection(cut, variables, frozenset(nodes), candidates)
            if sections and not variables:
                section = sections.pop() + section
            sections.append(section)
            begin = i + 1
    return sections


def _path(graph: FlatGraph) -> tuple[list[str], dict[str, set[int]]]:
    """Finds the nodes that carry values of both the input and the variables.

    Returns:
        Their names, each after its inputs, and for each of them the positions of the
        variables whose values come onto the path at this node.
    """
    variables_before: dict[str, frozenset[int]] = {}
    from_input: dict[str, bool] = {}
    path: list[str] = []
    entering: dict[str, set[int]] = {}
    for name in _by_depth(graph):
        parents = [node_of(tensor) for tensor in _value_inputs(graph.nodes[name])]
        variables = {graph.variables[name]} if name in graph.variables else set()
        variables = variables.union(*(variables_before[p] for p in parents))
        variables_before[name] = frozenset(variables)
        from_input[name] = name in graph.inputs or any(from_input[p] for p in parents)
        if from_input[name] and variables:
            path.append(name)
            weights = [variables_before[p] for p in parents if not from_input[p]]
            entering[name] = set().union(*weights)
    return path, entering


def _value_inputs(node) -> list[str]:
    """Returns the input tensors that a node's values depend on.

    For a random op, this is only the shape of the random tensor. Its seed does not
    count: all dropouts share the seed, which would tie them into one section.
    """
    inputs = data_inputs(node)
    if not is_random(node.op):
        return inputs
    return [] if "KeyCounter" in node.op else inputs[:1]


def _by_depth(graph: FlatGraph) -> list[str]:
    """Lists all nodes, each after its inputs, and shallow outputs before deep ones.

    An output that branches off in the middle (a feature map, an auxiliary head) comes
    before the nodes that follow the branch. Otherwise it would seem to cross every
    later cut.
    """
    depth: dict[str, int] = {}
    for name in topological_order(graph.nodes, graph.outputs):
        parents = map(node_of, data_inputs(graph.nodes[name]))
        depth[name] = 1 + max((depth[p] for p in parents), default=0)
    outputs = sorted(graph.outputs, key=lambda tensor: depth[node_of(tensor)])
    return topological_order(graph.nodes, outputs)


def _last_uses(graph: FlatGraph, path: list[str]) -> dict[str, int]:
    """Returns the index of the last node on the path that reads each path tensor."""
    on_path = set(path)
    return {
        tensor_of(tensor): i
        for i, name in enumerate(path)
        for tensor in data_inputs(graph.nodes[name])
        if node_of(tensor) in on_path
    }


def _outputs_in_use(name: str, last_use: Mapping[str, int]) -> list[str]:
    tensors = [f"{name}:{k}" for k in range(_MOST_OUTPUTS)]
    return [tensor for tensor in tensors if tensor in last_use]


def match_sections(
    inference: Sequence[GraphSection],
    training: Sequence[GraphSection],
    vectors: Collection[int],
) -> list[Section]:
    """Joins the sections of two graphs at the cuts that both have.

    Args:
        inference: Sections of the inference graph.
        training: Sections of the training graph.
        vectors: Positions of variables with at most one axis: biases, scales, offsets
            and statistics. A section with only such variables is joined to the one
            before it.

    Returns:
        The sections of the network in order of depth; at least one.
    """
    common = _variables(inference) & _variables(training)
    training_cuts = _cuts_by_variables(training, common)
    sections: list[Section] = []
    begin, training_begin = 0, 0
    for before, i in _cuts_by_variables(inference, common).items():
        if before in training_cuts:
            end, training_end = i + 1, training_cuts[before] + 1
            section = Section(
                functools.reduce(operator.add, inference[begin:end]),
                functools.reduce(operator.add, training[training_begin:training_end]),
            )
            begin, training_begin = end, training_end
            if sections and section.variables <= set(vectors):
                last = sections.pop()
                section = Section(
                    last.inference + section.inference, last.training + section.training
                )
            sections.append(section)
    return sections


def _variables(sections: Sequence[GraphSection]) -> frozenset[int]:
    return frozenset().union(*(section.variables for section in sections))


def _cuts_by_variables(
    sections: Sequence[GraphSection], common: frozenset[int]
) -> dict[frozenset[int], int]:
    """Identifies the cuts at the ends of sections by the variables read before them.

    Returns the index of the section before each cut, by the set of these variables.
    """
    cuts, before = {}, frozenset()
    for i, section in enumerate(sections):
        before |= section.variables & common
        cuts[before] = i
    return cuts
