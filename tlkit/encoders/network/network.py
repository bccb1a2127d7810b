"""The opened network: two flat graphs, cut into the same sections, that can be run.

A section_run of sections runs from either graph. Values of variables are arguments of the
TensorFlow function that holds the section_run, so whoever calls it (eagerly, in a graph,
under a strategy, under XLA) decides where they come from, and what is not to be
trained is not differentiated.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from ..graph.custom_gradients import MISSING, NAMED, register
from ..graph.flat_graph import (
    CannotOpen,
    FlatGraph,
    as_graph_def,
    node_of,
    reached,
    tensor_of,
)
from ..graph.graph_runner import (
    can_rebuild,
    import_nodes,
    rebuild_nodes,
    run_nodes,
)
from ..graph.random_ops import is_random
from ..graph.tensor_shapes import static_shapes
from .frozen_batch_norms import with_running_statistics
from .section_run import SectionResults, SectionRun
from .sections import depth_first, find_sections, match_sections


class Network:
    """Two flat graphs that are cut at the same tensors.

    Args:
        graphs: The graph for inference under `False`, the one for training under
            `True`.
        vectors: Positions of variables with at most one axis.
        resources: The captured tensors (tables) that the graphs still need.
        owner: What owns the resources, to be kept alive with them.
        losses: The regularization losses: graphs without inputs and with one output.

    Raises:
        CannotOpen: The two graphs do not fit each other.
    """

    def __init__(
        self,
        graphs: Mapping[bool, FlatGraph],
        vectors: frozenset[int],
        resources: Sequence[tf.Tensor] = (),
        owner: object = None,
        losses: Sequence[FlatGraph] = (),
    ):
        self.graphs = dict(graphs)
        self.losses = tuple(losses)
        self.vectors = vectors
        self.resources = tuple(resources)
        self.owner = owner if resources else None
        pieces = {kind: find_sections(graph) for kind, graph in graphs.items()}
        self.sections = match_sections(pieces[False], pieces[True], vectors)
        self._refuse_crossings()
        self._functions: dict[SectionRun, Callable] = {}
        self._taps: dict[bool, list[str]] = {}
        for graph in self.graphs.values():
            register(graph.gradients)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the graphs, in hexadecimal."""
        digest = hashlib.sha256()
        for graph in [*self.graphs.values(), *self.losses]:
            definition = as_graph_def(graph, graph.nodes)
            digest.update(definition.SerializeToString(deterministic=True))
            ends = (graph.inputs, graph.outputs, sorted(graph.updates.items()))
            digest.update(repr((ends, sorted(graph.variables.items()))).encode())
        if self.resources:  # what a table holds is not in the graph
            digest.update(uuid.uuid4().bytes)
        return digest.hexdigest()

    @property
    def missing_gradients(self) -> int:
        """How many custom gradients were not saved with the network."""
        nodes = self.graphs[False].nodes.values()
        # Asking a node for an attribute that it lacks would give it one.
        named = [node.attr[NAMED].s.decode() for node in nodes if NAMED in node.attr]
        return named.count(MISSING)

    @property
    def needs_seed(self) -> bool:
        """Whether training draws random numbers and wants a seed."""
        return self.graphs[True].seed is not None

    @functools.cached_property
    def _running(self) -> tuple[FlatGraph, frozenset[int]]:
        return with_running_statistics(self.graphs[True])

    @functools.cached_property
    def frozen_norm_sections(self) -> frozenset[int]:
        """Indices of sections whose training graph is of use with norms frozen.

        Without random ops the graph for inference does the same and costs less.
        """
        _, frozen = self._running
        written = set(self.graphs[True].updates)
        useful = []
        for i, section in enumerate(self.sections):
            averages = {p for p in section.variables & written if self._is_floating(p)}
            if averages <= frozen and self._is_random(i):
                useful.append(i)
        return frozenset(useful)

    def _is_floating(self, position: int) -> bool:
        spec = self._spec(position)
        return spec is not None and spec.dtype.is_floating

    def _is_random(self, section: int) -> bool:
        nodes = self.graphs[True].nodes
        return any(is_random(nodes[name].op) for name in self._between(section))

    def tap(self, section: int, training: bool) -> str:
        """Name of the tensor behind a section that tells most.

        That is the one at the cut; where it has one vector for each example, it is the
        map that the vector was taken from, if nothing but a pooling lies between.
        """
        if training not in self._taps:
            self._taps[training] = self._find_taps(training)
        return self._taps[training][section]

    def _find_taps(self, training: bool) -> list[str]:
        ends = [section.ends[training] for section in self.sections]
        flat = [tensor for tensors in ends for tensor in tensors]
        shapes = static_shapes(self.graphs[training], flat)
        axes = {t: shape.rank or 0 for t, shape in zip(flat, shapes, strict=True)}
        taps = []
        for tensors in ends:
            maps = [tensor for tensor in tensors if axes[tensor] > 2]
            vector = axes[tensors[-1]] <= 2
            taps.append(maps[-1] if maps and vector else tensors[-1])
        return taps

    def updates(
        self, sections: Sequence[int], training: bool, running: bool
    ) -> tuple[int, ...]:
        """Positions of the variables that some sections write."""
        if not training:
            return ()
        graph = self._running[0] if running else self.graphs[True]
        return tuple(p for p in graph.updates if self._writers[p] & set(sections))

    def section_of_output(self, output: int, training: bool) -> int:
        """Index of the section that makes an output."""
        name = node_of(self.graphs[training].outputs[output])
        for i, section in enumerate(self.sections):
            if name in section.nodes[training]:
                return i
        return 0  # it comes from the input alone

    def needed_inputs(self, section: int) -> tuple[int, ...]:
        """Positions of the inputs that are needed from a section on, beside its cut."""
        needed: set[int] = set()
        for training, graph in self.graphs.items():
            for i in range(section, len(self.sections)):
                inside = self._between(i, training)
                needed |= {
                    k for k, n in enumerate(graph.inputs) if node_of(n) in inside
                }
        return tuple(sorted(needed))

    def batch_norms(self, section: int) -> int:
        """How many batch norms a section holds."""
        graph, inside = self.graphs[False], self.sections[section]
        # Keras 2 runs layer norms through the same op, as if in training for ever.
        fused = sum(
            graph.nodes[name].op.startswith("FusedBatchNorm")
            and not graph.nodes[name].attr["is_training"].b
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

    @functools.cached_property
    def _writers(self) -> dict[int, frozenset[int]]:
        """For each variable that training writes, the sections whose run writes it.

        A batch norm's average is written by the section that it belongs to, the state
        of a random generator by every section that draws from it.
        """
        graph = self.graphs[True]
        reads = {i: self._reads(i) for i in range(len(self.sections))}
        writers = {}
        for position, update in graph.updates.items():
            needed = set(depth_first(graph.nodes, [update]))
            met = [i for i, s in enumerate(self.sections) if needed & s.nodes[True]]
            own = [i for i, s in enumerate(self.sections) if position in s.variables]
            drawn = [i for i, positions in reads.items() if position in positions]
            writers[position] = frozenset(own or met[-1:] or drawn or [0])
        return writers

    def _reads(self, section: int) -> set[int]:
        variables = self.graphs[True].variables
        return {variables[name] for name in self._between(section) if name in variables}

    def _between(self, section: int, training: bool = True) -> set[str]:
        """Names of all nodes that a section's run needs."""
        nodes = self.graphs[training].nodes
        start, end = self._stop(section - 1, training), self._stop(section, training)
        ends = [end] if end else [self.sections[section].ends[training][-1]]
        return reached(nodes, ends, {node_of(start)} if start else set())

    def run(
        self,
        section_run: SectionRun,
        cut: tf.Tensor | None,
        inputs: Sequence[tf.Tensor],
        value_of: Callable[[int], tf.Tensor],
        seed: tf.Tensor | None = None,
    ) -> SectionResults:
        """Runs a section_run.

        Args:
            section_run: What to run and what is wanted of it.
            cut: The tensor at its beginning; `None` for the network's beginning.
            inputs: The network's inputs, flattened.
            value_of: Gives the value of the variable at a position.
            seed: int32 `[2]`, for training where that draws random numbers.

        Returns:
            What was wanted.
        """
        if section_run not in self._functions:
            self._functions[section_run] = self._function(section_run)
        function, needed = self._functions[section_run]
        values = [value_of(position) for position in needed]
        end, outputs, updates, taps = function(cut, list(inputs), values, seed)
        return SectionResults(
            end,
            dict(zip(section_run.outputs, outputs, strict=True)),
            dict(zip(section_run.updates, updates, strict=True)),
            dict(zip(section_run.taps, taps, strict=True)),
        )

    def _graph(self, section_run: SectionRun) -> FlatGraph:
        return (
            self._running[0]
            if section_run.running_statistics
            else self.graphs[section_run.training]
        )

    def _function(self, section_run: SectionRun) -> tuple[Callable, list[int]]:
        graph = self._graph(section_run)
        start = self._stop(section_run.first - 1, section_run.training)
        end = (
            self._stop(section_run.last, section_run.training)
            if section_run.return_cut
            else None
        )
        wanted = [
            *([end] if end else []),
            *(graph.outputs[i] for i in section_run.outputs),
            *(graph.updates[i] for i in section_run.updates),
            *(self.tap(i, section_run.training) for i in section_run.taps),
        ]
        names = self._nodes_between(graph, start, wanted, section_run)
        definition = as_graph_def(graph, names)
        placeholders = {n: p for n, p in graph.variables.items() if n in names}
        needed = sorted(set(placeholders.values()))

        # A tape knows nothing of imported nodes, unless they are in a function.
        rebuilt = can_rebuild(definition)
        build = rebuild_nodes if rebuilt else import_nodes

        def run(cut, inputs, values, seed):
            # Constants for the gradient: what is frozen is never differentiated.
            at = {
                p: value if p in section_run.trainable else tf.stop_gradient(value)
                for p, value in zip(needed, values, strict=True)
            }
            bound = {name: at[position] for name, position in placeholders.items()}
            tensors = self._tensors(graph, inputs, bound, seed)
            if start:
                tensors[start] = cut
            results = iter(build(definition, tensors, wanted))
            return (
                next(results) if end else None,
                [next(results) for _ in section_run.outputs],
                [tf.stop_gradient(next(results)) for _ in section_run.updates],
                [next(results) for _ in section_run.taps],
            )

        function = tf.function(run, autograph=False)

        def run_anywhere(*arguments):
            alone = tf.executing_eagerly() or not rebuilt
            return function(*arguments) if alone else run(*arguments)

        return run_anywhere, needed

    def _tensors(self, graph: FlatGraph, inputs, bound, seed) -> dict[str, tf.Tensor]:
        """What stands in a graph's placeholders, by the names of their tensors."""
        bound = bound | dict(zip(graph.inputs, inputs, strict=True))
        # Identity, since an eager handle must be captured by the graph being built.
        bound |= {n: tf.identity(self.resources[i]) for n, i in graph.resources.items()}
        if graph.seed and seed is not None:
            bound[graph.seed] = seed
        return {tensor_of(name): tensor for name, tensor in bound.items()}

    def regularization(
        self, value_of: Callable[[int], tf.Tensor], trained: frozenset[int]
    ) -> list[tf.Tensor]:
        """The regularization losses of those variables that are trained, as scalars."""
        losses = []
        for graph in self.losses:
            if trained & set(graph.variables.values()):
                values = {
                    f"{name}:0": value_of(position)
                    for name, position in graph.variables.items()
                }
                definition = as_graph_def(graph, graph.nodes)
                losses += run_nodes(definition, values, list(graph.outputs))
        return losses

    def _stop(self, section: int, training: bool) -> str | None:
        return self.sections[section].stops[training] if section >= 0 else None

    def _refuse_crossings(self) -> None:
        """Makes sure that each section can be run from the cut before it."""
        for training, graph in self.graphs.items():
            earlier: set[str] = set()
            for i, section in enumerate(self.sections):
                if earlier & self._between(i, training):
                    name = node_of(self._stop(i - 1, training))
                    raise CannotOpen(f"more than one tensor passes the cut at `{name}`")
                earlier |= section.nodes[training]
                earlier -= {node_of(o) for o in graph.outputs}

    def _nodes_between(self, graph, start, wanted, section_run) -> set[str]:
        names = reached(graph.nodes, wanted, {node_of(start)} if start else set())
        earlier = self.sections[: section_run.first]
        crossing = [s for s in earlier if names & s.nodes[section_run.training]]
        if crossing:
            raise CannotOpen("something beside the cut tensor crosses a cut")
        return names
