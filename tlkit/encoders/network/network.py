"""The opened network: two flat graphs, cut into the same sections, that can be run.

Any consecutive sections can run from either graph. The values of variables are
arguments, so a network can run eagerly, in a graph, under a strategy or under XLA. Only
the values of trainable variables get gradients.

Tested in tests/encoders/test_forms.py.
"""

import functools
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from ..graph.custom_gradients import GRADIENT_ATTRIBUTE, MISSING_GRADIENT, register
from ..graph.flat_graph import (
    CannotOpen,
    FlatGraph,
    as_graph_def,
    needed_nodes,
    node_of,
)
from ..graph.graph_runner import can_rebuild, import_nodes, rebuild_nodes, run_nodes
from ..graph.random_ops import is_random
from ..graph.tensor_shapes import static_shapes
from .frozen_batch_norms import with_running_statistics
from .section_run import SectionResults, SectionRun
from .sections import find_sections, match_sections


class Network:
    """Two flat graphs that are cut at the same tensors.

    Args:
        graphs: The inference graph under `False`, the training graph under `True`.
        vectors: Positions of variables with at most one axis.
        resources: The captured tensors (lookup tables) that the graphs need.
        owner: The object that owns the resources, kept alive with them.
        losses: The regularization losses: graphs without inputs and with one output.

    Attributes:
        sections: The sections in order of depth.

    Raises:
        CannotOpen: The two graphs do not match.
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
        sections = {kind: find_sections(graph) for kind, graph in graphs.items()}
        self.sections = match_sections(sections[False], sections[True], vectors)
        self._check_cuts()
        self._functions: dict[SectionRun, tuple[Callable, list[int]]] = {}
        self._taps: dict[bool, list[str]] = {}
        for graph in self.graphs.values():
            register(graph.gradients)

    def _check_cuts(self) -> None:
        """Checks that each section can be computed from the tensor at its first cut."""
        for training, graph in self.graphs.items():
            earlier: set[str] = set()
            for i, section in enumerate(self.sections):
                if earlier & self._nodes_of(i, training):
                    name = node_of(self._cut(i - 1, training))
                    raise CannotOpen(f"more than one tensor passes the cut at `{name}`")
                earlier |= section.graph(training).nodes
                earlier -= {node_of(output) for output in graph.outputs}

    @functools.cached_property
    def digest(self) -> str:
        """Returns the SHA-256 of the graphs, in hexadecimal."""
        digest = hashlib.sha256()
        for graph in [*self.graphs.values(), *self.losses]:
            definition = as_graph_def(graph, graph.nodes)
            digest.update(definition.SerializeToString(deterministic=True))
            ends = (graph.inputs, graph.outputs, sorted(graph.updates.items()))
            digest.update(repr((ends, sorted(graph.variables.items()))).encode())
        if self.resources:  # networks with equal graphs may have different tables
            digest.update(uuid.uuid4().bytes)
        return digest.hexdigest()

    @property
    def missing_gradients(self) -> int:
        """Returns the number of custom gradients that the SavedModel lacks."""
        nodes = self.graphs[False].nodes.values()
        # Reading an attribute that a node lacks would create it.
        nodes = [node for node in nodes if GRADIENT_ATTRIBUTE in node.attr]
        names = [node.attr[GRADIENT_ATTRIBUTE].s.decode() for node in nodes]
        return names.count(MISSING_GRADIENT)

    @property
    def needs_seed(self) -> bool:
        """Returns whether training draws random numbers."""
        return self.graphs[True].seed is not None

    # === Running ===

    def run(
        self,
        section_run: SectionRun,
        cut: tf.Tensor | None,
        inputs: Sequence[tf.Tensor],
        value_of: Callable[[int], tf.Tensor],
        seed: tf.Tensor | None = None,
    ) -> SectionResults:
        """Runs consecutive sections.

        Args:
            section_run: Which sections, in which mode, and the tensors to return.
            cut: The tensor at the cut before the run's first section; `None` if this is
                the first section of the network.
            inputs: The network's inputs, flattened.
            value_of: Returns the value of the variable at a position.
            seed: The random seed, int32 `[2]`; required for training if `needs_seed`.

        Returns:
            The requested tensors.
        """
        if section_run not in self._functions:
            self._functions[section_run] = self._function(section_run)
        function, positions = self._functions[section_run]
        values = [value_of(position) for position in positions]
        end, outputs, updates, taps = function(cut, list(inputs), values, seed)
        return SectionResults(
            end,
            dict(zip(section_run.outputs, outputs, strict=True)),
            dict(zip(section_run.updates, updates, strict=True)),
            dict(zip(section_run.taps, taps, strict=True)),
        )

    def _function(self, section_run: SectionRun) -> tuple[Callable, list[int]]:
        """Returns a run's function and the positions of the variables that it reads."""
        training = section_run.training
        graph = self._graph(training, section_run.running_statistics)
        start = self._cut(section_run.first - 1, training)
        end = self._cut(section_run.last, training) if section_run.return_cut else None
        results = [
            *([end] if end else []),
            *(graph.outputs[i] for i in section_run.outputs),
            *(graph.updates[i] for i in section_run.updates),
            *(self.tap(i, training) for i in section_run.taps),
        ]
        names = needed_nodes(graph.nodes, results, {node_of(start)} if start else ())
        earlier = self.sections[: section_run.first]
        if any(names & section.graph(training).nodes for section in earlier):
            raise CannotOpen("more than the cut tensor crosses a cut")
        definition = as_graph_def(graph, names)
        positions = sorted({p for n, p in graph.variables.items() if n in names})

        # A gradient tape records imported nodes only if a `tf.function` contains them.
        rebuilt = can_rebuild(definition)
        build = rebuild_nodes if rebuilt else import_nodes

        def run(cut, inputs, values, seed):
            # Frozen variables get no gradients.
            by_position = {
                p: value if p in section_run.trainable else tf.stop_gradient(value)
                for p, value in zip(positions, values, strict=True)
            }
            tensors = graph.feeds(inputs, by_position, self.resources, seed)
            if start:
                tensors[start] = cut
            computed = iter(build(definition, tensors, results))
            return (
                next(computed) if end else None,
                [next(computed) for _ in section_run.outputs],
                [tf.stop_gradient(next(computed)) for _ in section_run.updates],
                [next(computed) for _ in section_run.taps],
            )

        function = tf.function(run, autograph=False)

        def run_anywhere(*arguments):
            as_function = tf.executing_eagerly() or not rebuilt
            return function(*arguments) if as_function else run(*arguments)

        return run_anywhere, positions

    def regularization(
        self, value_of: Callable[[int], tf.Tensor], trained: frozenset[int]
    ) -> list[tf.Tensor]:
        """Computes the regularization losses of the trained variables, as scalars."""
        losses = []
        for graph in self.losses:
            positions = set(graph.variables.values())
            if trained & positions:
                feeds = graph.feeds([], {p: value_of(p) for p in positions})
                definition = as_graph_def(graph, graph.nodes)
                losses += run_nodes(definition, feeds, graph.outputs)
        return losses

    # === Properties of sections ===

    def section_of_output(self, output: int, training: bool) -> int:
        """Returns the index of the section that computes an output."""
        name = node_of(self.graphs[training].outputs[output])
        for i, section in enumerate(self.sections):
            if name in section.graph(training).nodes:
                return i
        return 0  # the output depends on the inputs alone

    def needed_inputs(self, section: int) -> tuple[int, ...]:
        """Returns the positions of the inputs that a section or a later one reads."""
        needed: set[int] = set()
        for training, graph in self.graphs.items():
            for i in range(section, len(self.sections)):
                names = self._nodes_of(i, training)
                needed |= {k for k, n in enumerate(graph.inputs) if node_of(n) in names}
        return tuple(sorted(needed))

    def tap(self, section: int, training: bool) -> str:
        """Returns the name of the tensor that the tap of a section returns.

        This is the last tensor of the section or, if that tensor is a vector pooled
        from a feature map, the feature map.
        """
        if training not in self._taps:
            self._taps[training] = self._find_taps(training)
        return self._taps[training][section]

    def _find_taps(self, training: bool) -> list[str]:
        candidates = [s.graph(training).tap_candidates for s in self.sections]
        flat = [tensor for tensors in candidates for tensor in tensors]
        shapes = static_shapes(self.graphs[training], flat)
        axes = {t: shape.rank or 0 for t, shape in zip(flat, shapes, strict=True)}
        taps = []
        for tensors in candidates:
            maps = [tensor for tensor in tensors if axes[tensor] > 2]
            is_vector = axes[tensors[-1]] <= 2
            taps.append(maps[-1] if maps and is_vector else tensors[-1])
        return taps

    def batch_norms(self, section: int) -> int:
        """Counts the batch norms of a section."""
        nodes = self.graphs[False].nodes
        fused = [
            name
            for name in self.sections[section].inference.nodes
            if nodes[name].op.startswith("FusedBatchNorm")
            # Keras 2 builds layer norms with the same op, always with `is_training`.
            and not nodes[name].attr["is_training"].b
        ]
        # Batch norms of other ops are recognized by the two averages that each writes.
        return max(len(fused), len(self._averages(section)) // 2)

    def _averages(self, section: int) -> set[int]:
        """Returns the positions of a section's running averages."""
        written = set(self.graphs[True].updates)
        return self.sections[section].variables & written & self._floating_point

    @functools.cached_property
    def _floating_point(self) -> set[int]:
        return {
            position
            for graph in self.graphs.values()
            for name, position in graph.variables.items()
            if graph.value_specs[name].dtype.is_floating
        }

    @functools.cached_property
    def frozen_norm_sections(self) -> frozenset[int]:
        """Returns the sections that can train with dropout and frozen batch norms.

        Sections without random ops are left out, since the inference graph computes the
        same for them at a lower cost.
        """
        _, frozen = self._with_running_statistics
        nodes = self.graphs[True].nodes
        return frozenset(
            i
            for i in range(len(self.sections))
            if self._averages(i) <= frozen
            and any(is_random(nodes[name].op) for name in self._nodes_of(i))
        )

    @functools.cached_property
    def _with_running_statistics(self) -> tuple[FlatGraph, frozenset[int]]:
        return with_running_statistics(self.graphs[True])

    def updates(
        self, sections: Sequence[int], training: bool, running_statistics: bool
    ) -> tuple[int, ...]:
        """Returns the positions of the variables that a run of some sections writes."""
        if not training:
            return ()
        graph = self._graph(training, running_statistics)
        return tuple(p for p in graph.updates if self._writers[p] & set(sections))

    def _graph(self, training: bool, running_statistics: bool) -> FlatGraph:
        if running_statistics:
            return self._with_running_statistics[0]
        return self.graphs[training]

    @functools.cached_property
    def _writers(self) -> dict[int, frozenset[int]]:
        """Returns the sections that write a variable, by the variable's position.

        The average of a batch norm is written by the section that it belongs to, the
        state of a random generator by every section that draws from it.
        """
        graph = self.graphs[True]
        sections = list(enumerate(self.sections))
        read = {
            i: {graph.variables.get(name) for name in self._nodes_of(i)}
            for i, _ in sections
        }
        writers = {}
        for position, update in graph.updates.items():
            needed = needed_nodes(graph.nodes, [update])
            owners = [i for i, s in sections if position in s.variables]
            inputs = [i for i, s in sections if needed & s.training.nodes]
            readers = [i for i, positions in read.items() if position in positions]
            writers[position] = frozenset(owners or inputs[-1:] or readers or [0])
        return writers

    def _nodes_of(self, section: int, training: bool = True) -> set[str]:
        """Returns the names of the nodes between the two cuts of a section."""
        nodes = self.graphs[training].nodes
        start, end = self._cut(section - 1, training), self._cut(section, training)
        ends = [end or self.sections[section].graph(training).tap_candidates[-1]]
        return needed_nodes(nodes, ends, {node_of(start)} if start else ())

    def _cut(self, section: int, training: bool) -> str | None:
        """Returns the tensor at a section's end; `None` for the last section and -1."""
        return self.sections[section].graph(training).cut if section >= 0 else None
