"""The opened network: two flat graphs, cut into the same segments, that can be run.

A stretch of segments runs from either graph. Values of variables are arguments of the
TensorFlow function that holds the stretch, so whoever calls it (eagerly, in a graph,
under a strategy, under XLA) decides where they come from, and what is not to be
trained is not differentiated.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from .cuts import depth_first, find_pieces
from .flat_graph import (
    CannotOpen,
    FlatGraph,
    as_graph_def,
    node_of,
    reached,
)
from .segments import match_pieces


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Some neighboring segments, and how they run.

    Args:
        first: Index of the first segment.
        last: Index of the last segment, included.
        training: Which of the two graphs.
        thawed: Positions of the variables to be differentiated.
        outputs: Positions of the network's outputs that are wanted from here.
        updates: Positions of the variables whose new values are wanted.
        keep_cut: Whether the tensor at the end of the stretch is wanted.
    """

    first: int
    last: int
    training: bool
    thawed: frozenset[int]
    outputs: tuple[int, ...]
    updates: tuple[int, ...]
    keep_cut: bool = True


class Network:
    """Two flat graphs that are cut at the same tensors.

    Args:
        graphs: The graph for inference under `False`, the one for training under
            `True`.
        vectors: Positions of variables with at most one axis.
        resources: The captured tensors (tables) that the graphs still need.
        owner: What owns the resources, to be kept alive with them.

    Raises:
        CannotOpen: The two graphs do not fit each other.
    """

    def __init__(
        self,
        graphs: Mapping[bool, FlatGraph],
        vectors: frozenset[int],
        resources: Sequence[tf.Tensor] = (),
        owner: object = None,
    ):
        self.graphs = dict(graphs)
        self.vectors = vectors
        self.resources = tuple(resources)
        self.owner = owner if resources else None
        pieces = {kind: find_pieces(graph) for kind, graph in graphs.items()}
        self.segments = match_pieces(pieces[False], pieces[True], vectors)
        self._update_segment = {
            position: self._segment_of_update(position)
            for position in self.graphs[True].updates
        }
        self._functions: dict[Stretch, Callable] = {}

    @property
    def digest(self) -> str:
        """SHA-256 over both graphs, in hexadecimal."""
        digest = hashlib.sha256()
        for graph in self.graphs.values():
            definition = as_graph_def(graph, graph.nodes)
            digest.update(definition.SerializeToString(deterministic=True))
            ends = (graph.inputs, graph.outputs, sorted(graph.updates.items()))
            digest.update(repr(ends).encode())
        return digest.hexdigest()

    def segment_of_output(self, output: int, training: bool) -> int:
        """Index of the segment that makes an output."""
        name = node_of(self.graphs[training].outputs[output])
        for i, segment in enumerate(self.segments):
            if name in segment.nodes[training]:
                return i
        return 0  # it comes from the input alone

    def segment_of_update(self, position: int) -> int:
        """Index of the segment whose run gives a variable its new value."""
        return self._update_segment[position]

    def batch_norms(self, segment: int) -> int:
        """How many batch norms a segment holds."""
        graph, inside = self.graphs[False], self.segments[segment]
        fused = sum(
            graph.nodes[name].op.startswith("FusedBatchNorm")
            for name in inside.nodes[False]
        )
        # Others show by the two averages that they write in training.
        written = inside.variables & set(self.graphs[True].updates)
        specs = {p: self._spec(p) for p in written}
        averages = [p for p, spec in specs.items() if spec and spec.dtype.is_floating]
        return max(fused, len(averages) // 2)

    def _spec(self, position: int) -> tf.TensorSpec | None:
        for graph in self.graphs.values():
            for name, place in graph.variables.items():
                if place == position:
                    return graph.value_specs[name]
        return None

    def _segment_of_update(self, position: int) -> int:
        graph = self.graphs[True]
        for i, segment in enumerate(self.segments):
            if position in segment.variables:
                return i
        needed = set(depth_first(graph.nodes, [graph.updates[position]]))
        met = [i for i, s in enumerate(self.segments) if needed & s.nodes[True]]
        return max(met, default=0)

    def run(
        self,
        stretch: Stretch,
        cut: tf.Tensor | None,
        inputs: Sequence[tf.Tensor],
        value_of: Callable[[int], tf.Tensor],
    ) -> tuple[tf.Tensor | None, dict[int, tf.Tensor], dict[int, tf.Tensor]]:
        """Runs a stretch.

        Args:
            stretch: What to run and what is wanted of it.
            cut: The tensor at its beginning; `None` for the network's beginning.
            inputs: The network's inputs, flattened.
            value_of: Gives the value of the variable at a position.

        Returns:
            The tensor at its end, outputs by position, and new values of variables by
            position.
        """
        if stretch not in self._functions:
            self._functions[stretch] = self._function(stretch)
        function, needed = self._functions[stretch]
        values = [value_of(position) for position in needed]
        end, outputs, updates = function(cut, list(inputs), values)
        return (
            end,
            dict(zip(stretch.outputs, outputs, strict=True)),
            dict(zip(stretch.updates, updates, strict=True)),
        )

    def _function(self, stretch: Stretch) -> tuple[Callable, list[int]]:
        graph = self.graphs[stretch.training]
        start = self._stop(stretch.first - 1, stretch.training)
        end = self._stop(stretch.last, stretch.training) if stretch.keep_cut else None
        wanted = [
            *([end] if end else []),
            *(graph.outputs[i] for i in stretch.outputs),
            *(graph.updates[i] for i in stretch.updates),
        ]
        names = self._nodes_between(graph, start, wanted, stretch)
        definition = as_graph_def(graph, names)
        placeholders = {n: p for n, p in graph.variables.items() if n in names}
        needed = sorted(set(placeholders.values()))

        @tf.function(autograph=False)
        def run(cut, inputs, values):
            bound = dict(zip(graph.inputs, inputs, strict=True))
            # Constants for the gradient: what is frozen is never differentiated.
            at = {
                p: value if p in stretch.thawed else tf.stop_gradient(value)
                for p, value in zip(needed, values, strict=True)
            }
            bound |= {name: at[position] for name, position in placeholders.items()}
            bound |= {n: self.resources[i] for n, i in graph.resources.items()}
            tensors = {f"{name}:0": tensor for name, tensor in bound.items()}
            if start:
                tensors[start] = cut
            results = iter(_import(definition, tensors, wanted))
            return (
                next(results) if end else None,
                [next(results) for _ in stretch.outputs],
                [tf.stop_gradient(next(results)) for _ in stretch.updates],
            )

        return run, needed

    def _stop(self, segment: int, training: bool) -> str | None:
        return self.segments[segment].stops[training] if segment >= 0 else None

    def _nodes_between(self, graph, start, wanted, stretch) -> set[str]:
        names = reached(graph.nodes, wanted, {node_of(start)} if start else set())
        earlier = self.segments[: stretch.first]
        crossing = [s for s in earlier if names & s.nodes[stretch.training]]
        if crossing:
            raise CannotOpen("something beside the cut tensor crosses a cut")
        return names


def _import(definition, tensors: dict[str, tf.Tensor], wanted: list[str]):
    """Imports nodes and gives the wanted tensors, which may be among those given."""
    used = {t for node in definition.node for t in node.input}
    made = [name for name in wanted if name not in tensors]
    results = tf.graph_util.import_graph_def(
        definition,
        {name: tensor for name, tensor in tensors.items() if name in used},
        made,
        name="encoder",
    )
    found = dict(zip(made, results, strict=True)) | tensors
    return [found[name] for name in wanted]
