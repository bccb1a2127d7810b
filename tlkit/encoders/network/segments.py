"""Pieces of the graph for inference beside the same pieces of the graph for training.

A block may run from either graph, so both must be cut at the same tensors. Nodes have
other names in the two, and dropout or batch norm make them differ, but what lies
before a cut is the same: its variables.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from .sections import Piece


@dataclasses.dataclass(frozen=True)
class Segment:
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


def match_pieces(
    inference: Sequence[Piece], training: Sequence[Piece], vectors: Collection[int]
) -> list[Segment]:
    """Keeps the cuts that both graphs have, with the same variables before them.

    Args:
        inference: Pieces of the graph for inference.
        training: Pieces of the graph for training.
        vectors: Positions of variables with at most one axis: biases, scales, offsets
            and statistics. A piece that has only such ones belongs to the one before.

    Returns:
        The segments in the order of depth; at least one.
    """
    common = _all_variables(inference) & _all_variables(training)
    other = _cuts(training, common)
    segments: list[Segment] = []
    begin = {False: 0, True: 0}
    for before, i in _cuts(inference, common).items():
        if before in other:
            ends = {False: i + 1, True: other[before] + 1}
            taken = {
                False: inference[begin[False] : ends[False]],
                True: training[begin[True] : ends[True]],
            }
            segments.append(_segment(taken))
            begin = ends
    return _with_vectors_behind(segments, vectors)


def _segment(pieces: Mapping[bool, Sequence[Piece]]) -> Segment:
    return Segment(
        variables=_all_variables([*pieces[False], *pieces[True]]),
        stops={kind: pieces[kind][-1].stop for kind in pieces},
        nodes={
            kind: frozenset().union(*(piece.nodes for piece in pieces[kind]))
            for kind in pieces
        },
        ends={kind: pieces[kind][-1].ends for kind in pieces},
    )


def _all_variables(pieces: Sequence[Piece]) -> frozenset[int]:
    return frozenset().union(*(piece.variables for piece in pieces))


def _cuts(pieces: Sequence[Piece], common: frozenset[int]) -> dict[frozenset[int], int]:
    """Index of the last piece behind each set of common variables."""
    cuts, before = {}, frozenset()
    for i, piece in enumerate(pieces):
        before |= piece.variables & common
        cuts[before] = i
    return cuts


def _with_vectors_behind(
    segments: Sequence[Segment], vectors: Collection[int]
) -> list[Segment]:
    """Joins a segment that has no kernel (a bias, a norm) to the one before it."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.variables <= set(vectors):
            last = joined.pop()
            nodes = {
                kind: last.nodes[kind] | segment.nodes[kind] for kind in last.nodes
            }
            both = last.variables | segment.variables
            segment = dataclasses.replace(segment, variables=both, nodes=nodes)
        joined.append(segment)
    return joined
