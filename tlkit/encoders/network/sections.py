"""Where a flat graph can be cut: where exactly one tensor passes.

What passes a cut is a tensor that carries values of both the input and the variables.
What comes from the input alone (an attention mask) or from the variables alone (a
transposed kernel) may cross, since it can be computed again on the other side.

Pieces of the graph for inference beside the same pieces of the graph for training.

A block may run from either graph, so both must be cut at the same tensors. Nodes have
other names in the two, and dropout or batch norm make them differ, but what lies
before a cut is the same: its variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..graph.flat_graph import FlatGraph, data_inputs, node_of, tensor_of
from ..graph.random_ops import is_random


@dataclasses.dataclass(frozen=True)
class GraphSection:
    """A stretch of a flat graph between two cuts.

    Args:
        stop: The tensor that leaves the piece; `None` at the end of the graph.
        variables: Positions of the variables that the piece reads.
        nodes: Names of its nodes that carry values of both input and variables.
        ends: All tensors behind its last variable where only one tensor passes, in
            the order of depth; at the end of the graph also the last tensor.
    """

    stop: str | None
    variables: frozenset[int]
    nodes: frozenset[str]
    ends: tuple[str, ...] = ()


def find_sections(graph: FlatGraph) -> list[GraphSection]:
    """The pieces of a flat graph, from the input to the output.

    A cut is kept only where no variable is read on both sides of it, so pieces that
    share a variable (all layers of an ALBERT) are one. Where several tensors in a row
    could be the cut, the last one before the next variable is taken: it is the same
    in the graph for training and in the graph for inference.
    """
    path, variables_of = _path(graph)
    last_use = _last_uses(graph, path)
    last_read = {v: i for i, name in enumerate(path) for v in variables_of[name]}
    pieces: list[GraphSection] = []
    live: set[str] = set()
    open_until, begin = -1, 0
    for i, name in enumerate(path):
        open_until = max([open_until, *(last_read[v] for v in variables_of[name])])
        live = {tensor for tensor in live if last_use[tensor] > i}
        live |= {t for t in _tensors_of(name, last_use) if last_use[t] > i}
        at_end = i == len(path) - 1
        if (len(live) == 1 and open_until <= i) or at_end:
            nodes = path[begin : i + 1]
            read = frozenset().union(*(variables_of[name] for name in nodes))
            stop = next(iter(live), None)
            ends = (stop or tensor_of(name),)
            pieces.append(GraphSection(stop, read, frozenset(nodes), ends))
            begin = i + 1
    return _joined(pieces)


def _joined(pieces: list[GraphSection]) -> list[GraphSection]:
    """Joins each piece that reads no variable to the one before it."""
    joined: list[GraphSection] = []
    for piece in pieces:
        if joined and not piece.variables:
            nodes = joined[-1].nodes | piece.nodes
            before = joined.pop()
            ends = before.ends + piece.ends
            piece = GraphSection(piece.stop, before.variables, nodes, ends)
        joined.append(piece)
    return joined


def _path(graph: FlatGraph) -> tuple[list[str], dict[str, set[int]]]:
    """The nodes that carry values of input and variables, parents first.

    Beside them, for each of these nodes, the variables that enter the path there.
    """
    learned: dict[str, frozenset[int]] = {}
    fed: dict[str, bool] = {}
    path: list[str] = []
    entering: dict[str, set[int]] = {}
    for name in _in_order_of_depth(graph):
        parents = [node_of(tensor) for tensor in _told_by(graph.nodes[name])]
        own = {graph.variables[name]} if name in graph.variables else set()
        fed[name] = name in graph.inputs or any(fed[p] for p in parents)
        learned[name] = frozenset(own.union(*(learned[p] for p in parents)))
        if fed[name] and learned[name]:
            path.append(name)
            sides = [learned[p] for p in parents if not fed[p]]
            entering[name] = set().union(*sides)
    return path, entering


def _told_by(node) -> list[str]:
    """The tensors whose values or shapes a node's own depend on in a way that ties.

    A seed that all dropouts share ties nothing together; the shape of a draw does.
    """
    inputs = data_inputs(node)
    if not is_random(node.op):
        return inputs
    return [] if "KeyCounter" in node.op else inputs[:1]


def _in_order_of_depth(graph: FlatGraph) -> list[str]:
    """All nodes, parents first, and shallow outputs before deep ones.

    An output that branches off in the middle (a feature map, an auxiliary head) is
    finished before the way goes on; else it would seem to pass every later cut.
    """
    depth: dict[str, int] = {}
    for name in depth_first(graph.nodes, graph.outputs):
        parents = map(node_of, data_inputs(graph.nodes[name]))
        depth[name] = 1 + max((depth[p] for p in parents), default=0)
    ends = sorted(graph.outputs, key=lambda tensor: depth[node_of(tensor)])
    return depth_first(graph.nodes, ends)


def depth_first(nodes: Mapping[str, object], ends: Iterable[str]) -> list[str]:
    """Names of the nodes that the tensors `ends` need, parents before children."""
    order: list[str] = []
    seen: set[str] = set()
    for end in map(node_of, ends):
        stack = [] if end in seen else [(end, iter(data_inputs(nodes[end])))]
        seen.add(end)
        while stack:
            name, rest = stack[-1]
            for parent in map(node_of, rest):
                if parent not in seen:
                    seen.add(parent)
                    stack.append((parent, iter(data_inputs(nodes[parent]))))
                    break
            else:
                order.append(name)
                stack.pop()
    return order


def _last_uses(graph: FlatGraph, path: list[str]) -> dict[str, int]:
    """The last place on the path that reads each tensor, along any way."""
    place = {name: i for i, name in enumerate(path)}
    used: dict[str, int] = {}
    for i, name in enumerate(path):
        for tensor in data_inputs(graph.nodes[name]):
            if node_of(tensor) in place:
                used[tensor_of(tensor)] = max(i, used.get(tensor_of(tensor), -1))
    return used


def _tensors_of(name: str, last_use: Mapping[str, int]) -> list[str]:
    candidates = [f"{name}:{k}" for k in range(8)]
    return [tensor for tensor in candidates if tensor in last_use]


# === Segments ===


@dataclasses.dataclass(frozen=True)
class Section:
    """A stretch of the encoder between two cuts that both graphs have.

    Args:
        variables: Positions of the variables that either graph reads here.
        stops: The tensor that leaves it, by whether the graph is for training; `None`
            at the end.
        nodes: Names of its nodes, likewise.
        ends: All tensors behind its last variable where only one passes, likewise.
    """

    variables: frozenset[int]
    stops: Mapping[bool, str | None]
    nodes: Mapping[bool, frozenset[str]]
    ends: Mapping[bool, tuple[str, ...]]


def match_sections(
    inference: Sequence[GraphSection],
    training: Sequence[GraphSection],
    vectors: Collection[int],
) -> list[Section]:
    """Keeps the cuts that both graphs have, with the same variables before them.

    Args:
        inference: Pieces of the graph for inference.
        training: Pieces of the graph for training.
        vectors: Positions of variables with at most one axis: biases, scales, offsets
            and statistics. A piece that has only such ones belongs to the one before.

    Returns:
        The sections in the order of depth; at least one.
    """
    common = _all_variables(inference) & _all_variables(training)
    other = _cuts(training, common)
    sections: list[Section] = []
    begin = {False: 0, True: 0}
    for before, i in _cuts(inference, common).items():
        if before in other:
            ends = {False: i + 1, True: other[before] + 1}
            taken = {
                False: inference[begin[False] : ends[False]],
                True: training[begin[True] : ends[True]],
            }
            sections.append(_section(taken))
            begin = ends
    return _with_vectors_behind(sections, vectors)


def _section(pieces: Mapping[bool, Sequence[GraphSection]]) -> Section:
    return Section(
        variables=_all_variables([*pieces[False], *pieces[True]]),
        stops={kind: pieces[kind][-1].stop for kind in pieces},
        nodes={
            kind: frozenset().union(*(piece.nodes for piece in pieces[kind]))
            for kind in pieces
        },
        ends={kind: pieces[kind][-1].ends for kind in pieces},
    )


def _all_variables(pieces: Sequence[GraphSection]) -> frozenset[int]:
    return frozenset().union(*(piece.variables for piece in pieces))


def _cuts(
    pieces: Sequence[GraphSection], common: frozenset[int]
) -> dict[frozenset[int], int]:
    """Index of the last piece behind each set of common variables."""
    cuts, before = {}, frozenset()
    for i, piece in enumerate(pieces):
        before |= piece.variables & common
        cuts[before] = i
    return cuts


def _with_vectors_behind(
    sections: Sequence[Section], vectors: Collection[int]
) -> list[Section]:
    """Joins a section that has no kernel (a bias, a norm) to the one before it."""
    joined: list[Section] = []
    for section in sections:
        if joined and section.variables <= set(vectors):
            last = joined.pop()
            nodes = {
                kind: last.nodes[kind] | section.nodes[kind] for kind in last.nodes
            }
            both = last.variables | section.variables
            section = dataclasses.replace(section, variables=both, nodes=nodes)
        joined.append(section)
    return joined
