"""The flat, pure graph that a SavedModel's nest of functions becomes.

It has no calls, no variables and no side effects: a variable is a placeholder that is
fed its value, a write to a variable is an output that holds the new value, and a
constant that was captured stands in the graph. Such a graph can be cut anywhere,
differentiated with respect to any of its placeholders and imported wherever
TensorFlow builds a graph: in `tf.function`, under a strategy, under XLA.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import tensorflow as tf

from .custom_gradients import GradientGraph

# What looks at a tensor's shape only carries none of its values.
SHAPE_LIKE = {"Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike"}


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
        gradients: The custom gradients, by the name under which nodes ask for them.
        seed: Name of the placeholder of the seed, int32 `[2]`; `None` where nothing
            is random.
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
    gradients: Mapping[str, GradientGraph] = dataclasses.field(default_factory=dict)
    seed: str | None = None


def node_of(tensor: str) -> str:
    """Name of the node that makes a tensor: `"a/b:1"` and `"^a/b"` give `"a/b"`."""
    return tensor.removeprefix("^").split(":")[0]


def tensor_of(name: str) -> str:
    """The full name of a tensor: `"a/b"` gives `"a/b:0"`."""
    return name if ":" in name else f"{name}:0"


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


def attribute(**value) -> tf.compat.v1.AttrValue:
    """An attribute of a node, such as `attribute(i=1)`."""
    return tf.compat.v1.AttrValue(**value)


def type_attribute(dtype: tf.DType) -> tf.compat.v1.AttrValue:
    """An attribute that holds a dtype."""
    return attribute(type=dtype.as_datatype_enum)


def make_node(
    name: str, op: str, inputs: Iterable[str], **attributes
) -> tf.compat.v1.NodeDef:
    """A node of a graph; its inputs may be names of nodes or of tensors."""
    node = tf.compat.v1.NodeDef(name=name, op=op)
    node.input.extend(i if i.startswith("^") else tensor_of(i) for i in inputs)
    for key, value in attributes.items():
        node.attr[key].CopyFrom(value)
    return node


def constant(name: str, value, dtype: tf.DType) -> tf.compat.v1.NodeDef:
    """A node that holds a constant."""
    node = make_node(name, "Const", [], dtype=type_attribute(dtype))
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=dtype))
    return node


def as_graph_def(graph: FlatGraph, names: Iterable[str]) -> tf.compat.v1.GraphDef:
    """A GraphDef of some of the nodes; placeholders are left out, to be mapped."""
    # XLA compiles no placeholder, be it used or not, so none may be imported.
    nodes = (graph.nodes[name] for name in sorted(names))
    result = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    result.node.extend(node for node in nodes if node.op != "Placeholder")
    return result


def without_control(node: tf.compat.v1.NodeDef) -> tf.compat.v1.NodeDef:
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
