"""One flat, pure graph out of a SavedModel's nest of functions.

A restored function is a box of boxes: functions that call functions, variables
that are reached through handles, side effects that are ordered by control edges.
`flatten` turns it into a graph with none of these: the functions are inlined, a
variable is a placeholder that is fed its value, a write to a variable is an output
that holds the new value, and a constant that was captured stands in the graph. Such
a graph can be cut anywhere, differentiated with respect to any of its placeholders
and imported wherever TensorFlow builds a graph: in `tf.function`, under a strategy,
under XLA.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import tensorflow as tf

# Private: there is no public way to inline the calls of a function. TensorFlow's own
# `convert_variables_to_constants_v2` (public, used by TFLite) goes through it.
# tests/encoders/test_flat_graph.py notices when it changes.
from tensorflow.python.framework.convert_to_constants import (
    _run_inline_graph_optimization,
)

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "For"}
OPAQUE = {"XlaCallModule": "a JAX export", "PyFunc": "Python code"}
UPDATES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


class CannotOpen(Exception):
    """Why a function cannot become a flat graph; the caller falls back and says so."""


@dataclasses.dataclass(frozen=True)
class FlatGraph:
    """A pure graph from inputs and the values of variables to outputs and updates.

    Args:
        nodes: The nodes by name, in no particular order.
        versions: TensorFlow's version stamp of the graph, to be kept on import.
        library: Functions that the graph still refers to (none in most).
        inputs: Name of the placeholder of each input, in the flattened order.
        outputs: Name of each output tensor, in the flattened order.
        variables: Which variable (a position in the encoder's list) each
            placeholder of a value stands for.
        resources: Which captured resource, such as a table, each remaining
            placeholder stands for.
        updates: Tensor with the new value of each variable that the function writes.
        input_specs: Shape and dtype of each input.
        value_specs: Shape and dtype of each variable's value, by placeholder.
    """

    nodes: Mapping[str, tf.compat.v1.NodeDef]
    versions: object
    library: object
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: Mapping[str, int]
    resources: Mapping[str, int]
    updates: Mapping[int, str]
    input_specs: tuple[tf.TensorSpec, ...]
    value_specs: Mapping[str, tf.TensorSpec]


def node_of(tensor: str) -> str:
    """Name of the node that makes a tensor: `"a/b:1"` and `"^a/b"` give `"a/b"`."""
    return tensor.removeprefix("^").split(":")[0]


def data_inputs(node: tf.compat.v1.NodeDef) -> list[str]:
    """Tensors that a node reads, without control edges."""
    return [name for name in node.input if not name.startswith("^")]


def reached(
    nodes: Mapping[str, tf.compat.v1.NodeDef], ends: Iterable[str], stop: set[str]
) -> set[str]:
    """Names of the nodes that the tensors `ends` need, `stop` nodes left out."""
    seen: set[str] = set()
    stack = [node_of(end) for end in ends]
    while stack:
        name = stack.pop()
        if name in seen or name in stop:
            continue
        seen.add(name)
        stack.extend(node_of(tensor) for tensor in data_inputs(nodes[name]))
    return seen


def flatten(
    function: tf.types.experimental.ConcreteFunction,
    variables: Mapping[int, tuple[int, tf.TensorSpec]],
    resources: list,
) -> FlatGraph:
    """Turns a restored function into one flat, pure graph.

    Args:
        function: The concrete function, such as one of a SavedModel's `__call__`.
        variables: Position and spec of each variable, by the `id` of its handle.
        resources: Captured tensors that are neither variables nor constants (a
            table's handle); extended in place by those of this function.

    Returns:
        The flat graph.

    Raises:
        CannotOpen: The function has something in it that cannot be made pure; the
            text says what.
    """
    graph = _inline(function)
    nodes = {node.name: node for node in graph.node}
    _refuse_opaque(nodes)
    work = _Purifier(nodes)
    captured = {inner.op.name for _, inner in function.graph.captures}
    for outer, inner in function.graph.captures:
        work.bind(inner.op.name, outer, variables, resources)
    work.rewrite()
    work.refuse_reads_after_writes([tensor.name for tensor in function.outputs])
    work.drop_identities()
    given = [t for t in function.inputs if t.op.name not in captured]
    inputs = tuple(t.op.name for t in given)
    outputs = tuple(work.source(tensor.name) for tensor in function.outputs)
    updates = {k: work.source(tensor) for k, tensor in work.updates.items()}
    keep = reached(nodes, [*outputs, *updates.values(), *inputs], set())
    return FlatGraph(
        nodes={name: _without_control(nodes[name]) for name in keep},
        versions=graph.versions,
        library=graph.library,
        inputs=inputs,
        outputs=outputs,
        variables={k: v for k, v in work.variables.items() if k in keep},
        resources={k: v for k, v in work.resources.items() if k in keep},
        updates=updates,
        input_specs=tuple(tf.TensorSpec(t.shape, t.dtype) for t in given),
        value_specs={k: v for k, v in work.specs.items() if k in keep},
    )


def _inline(function) -> tf.compat.v1.GraphDef:
    """Inlines every call, as TensorFlow does before it folds variables."""
    opaque = _opaque_ops(function.graph.as_graph_def())
    if opaque:
        raise CannotOpen(opaque)
    return _run_inline_graph_optimization(
        function, lower_control_flow=False, aggressive_inlining=True
    )


def _opaque_ops(graph: tf.compat.v1.GraphDef) -> str | None:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    for node in (node for body in bodies for node in body):
        if node.op in OPAQUE:
            return f"it holds {OPAQUE[node.op]} (op {node.op})"
    return None


def _refuse_opaque(nodes: Mapping[str, tf.compat.v1.NodeDef]) -> None:
    for node in nodes.values():
        if node.op in CONTROL_FLOW:
            raise CannotOpen(f"it has control flow (op {node.op}, `{node.name}`)")
        if node.op in CALLS:
            raise CannotOpen(f"a call could not be inlined (`{node.name}`)")


def _without_control(node: tf.compat.v1.NodeDef) -> tf.compat.v1.NodeDef:
    """A copy without control edges, placement and location hints."""
    copy = tf.compat.v1.NodeDef()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.input.extend(data_inputs(node))
    copy.device = ""
    for hint in ("_class", "_output_shapes"):
        if hint in copy.attr:
            del copy.attr[hint]
    return copy


class _Purifier:
    """Rewrites reads and writes of variables, node by node, in place."""

    def __init__(self, nodes: dict[str, tf.compat.v1.NodeDef]):
        self.nodes = nodes
        self.specs: dict[str, tf.TensorSpec] = {}
        self.variables: dict[str, int] = {}
        self.resources: dict[str, int] = {}
        self.updates: dict[int, str] = {}
        self.writes: dict[int, str] = {}

    def bind(self, name: str, outer, variables, resources: list) -> None:
        """Notes what the placeholder of a capture stands for."""
        if name not in self.nodes:
            return
        if id(outer) in variables:
            self.variables[name], self.specs[name] = variables[id(outer)]
        elif outer.dtype in (tf.resource, tf.variant):
            known = [i for i, tensor in enumerate(resources) if tensor is outer]
            if not known:
                resources.append(outer)
            self.resources[name] = known[0] if known else len(resources) - 1
        elif hasattr(outer, "numpy"):
            self.nodes[name].CopyFrom(constant(name, outer.numpy(), outer.dtype))
        else:
            raise CannotOpen(f"it captures a tensor of another graph (`{name}`)")

    def rewrite(self) -> None:
        # All found before any is rewritten: a read becomes an Identity, and a chain of
        # Identity is how a handle travels.
        accesses = [(n, self._variable_read_by(n)) for n in self.nodes.values()]
        for node, variable in accesses:
            if variable is not None:
                self._rewrite_access(node, *variable)

    def _variable_read_by(self, node) -> tuple[str, int] | None:
        """The placeholder and the position of the variable whose handle is input 0."""
        if not node.input or node.input[0].startswith("^") or node.op == "Identity":
            return None
        root = self._root(node.input[0])
        return (root, self.variables[root]) if root in self.variables else None

    def _root(self, tensor: str) -> str:
        """Where a handle comes from: inlining leaves chains of Identity behind."""
        name = node_of(tensor)
        while self.nodes[name].op == "Identity":
            name = node_of(self.nodes[name].input[0])
        return name

    def _rewrite_access(self, node, value: str, position: int) -> None:
        rest = [name for name in data_inputs(node)][1:]
        if node.op == "ReadVariableOp":
            self._become(node, "Identity", [value], T=node.attr["dtype"])
        elif node.op in ("ResourceGather", "ResourceGatherNd"):
            self._become_gather(node, value, rest)
        elif node.op in UPDATES:
            self._become_update(node, value, position, rest)
        elif node.op == "VariableShape":
            dtype = attribute(type=self.specs[value].dtype.as_datatype_enum)
            types = {"T": dtype, "out_type": node.attr["out_type"]}
            self._become(node, "Shape", [value], **types)
        elif node.op == "VarIsInitializedOp":
            node.CopyFrom(constant(node.name, True, tf.bool))
        else:
            raise CannotOpen(f"it uses a variable through the op {node.op}")

    def _become(self, node, op: str, inputs: list[str], **attributes) -> None:
        control = [name for name in node.input if name.startswith("^")]
        new = tf.compat.v1.NodeDef(name=node.name, op=op)
        new.input.extend([*inputs, *control])
        for key, attribute in attributes.items():
            new.attr[key].CopyFrom(attribute)
        node.CopyFrom(new)

    def _become_gather(self, node, value: str, rest: list[str]) -> None:
        types = {"Tparams": node.attr["dtype"], "Tindices": node.attr["Tindices"]}
        if node.op == "ResourceGatherNd":
            self._become(node, "GatherNd", [value, *rest], **types)
            return
        batch_dims = node.attr["batch_dims"].i
        axis = f"{node.name}/axis"
        self.nodes[axis] = constant(axis, batch_dims, tf.int32)
        int32 = attribute(type=tf.int32.as_datatype_enum)
        types |= {"Taxis": int32, "batch_dims": node.attr["batch_dims"]}
        self._become(node, "GatherV2", [value, *rest, axis], **types)

    def _become_update(self, node, value: str, position: int, rest: list[str]) -> None:
        if position in self.updates:
            raise CannotOpen("it writes a variable twice in one call")
        dtype = node.attr["dtype"]
        if node.op == "AssignVariableOp":
            self._become(node, "Identity", rest, T=dtype)
        else:
            op = "AddV2" if node.op == "AssignAddVariableOp" else "Sub"
            self._become(node, op, [value, *rest], T=dtype)
        self.updates[position] = f"{node.name}:0"
        self.writes[position] = node.name

    def drop_identities(self) -> None:
        """Lets every node read from where its tensors really come."""
        for node in self.nodes.values():
            for i, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    node.input[i] = self.source(tensor)

    def source(self, tensor: str) -> str:
        """The tensor at the beginning of a chain of Identity nodes."""
        node = self.nodes[node_of(tensor)]
        # An Identity that names a gradient of its own is there for the gradient.
        while node.op == "Identity" and "_gradient_op_type" not in node.attr:
            tensor = node.input[0]
            node = self.nodes[node_of(tensor)]
        return tensor if ":" in tensor else f"{tensor}:0"

    def refuse_reads_after_writes(self, outputs: list[str]) -> None:
        """A read that is ordered after a write of the same variable is not pure."""
        keep = reached(self.nodes, [*outputs, *self.updates.values()], set())
        for position, write in self.writes.items():
            readers = {
                name
                for name in keep
                if name != write
                and any(
                    self.variables.get(node_of(i)) == position
                    for i in data_inputs(self.nodes[name])
                )
            }
            if any(self._runs_after(reader, write) for reader in readers):
                raise CannotOpen("it reads a variable again after writing it")

    def _runs_after(self, name: str, write: str) -> bool:
        seen, stack = {name}, [name]
        while stack:
            for tensor in self.nodes[stack.pop()].input:
                parent = node_of(tensor)
                if parent == write:
                    return True
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return False


def attribute(**value) -> tf.compat.v1.AttrValue:
    """An attribute of a node, such as `attribute(type=1)`."""
    return tf.compat.v1.AttrValue(**value)


def constant(name: str, value, dtype: tf.DType) -> tf.compat.v1.NodeDef:
    """A node that holds a constant."""
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
    return node


def as_graph_def(graph: FlatGraph, names: Iterable[str]) -> tf.compat.v1.GraphDef:
    """A GraphDef of some of the nodes; placeholders are left out, to be mapped."""
    # XLA compiles no placeholder, be it used or not, so none may be imported.
    nodes = (graph.nodes[name] for name in sorted(names))
    result = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    result.node.extend(node for node in nodes if node.op != "Placeholder")
    return result
