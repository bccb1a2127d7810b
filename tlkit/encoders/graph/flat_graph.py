"""The flat, pure graph into which a SavedModel's nested functions are turned.

A flat graph has no function calls, no variables and no side effects:

* The value of a variable is fed through a placeholder.
* The new value of a variable that the function writes is an output.
* A captured constant is a node of the graph.

Such a graph can be cut anywhere and differentiated with respect to any placeholder. It
can be imported wherever TensorFlow builds a graph: in a `tf.function`, under a
distribution strategy, under XLA.

Tested in tests/encoders/graph/test_flattener.py.
"""

import dataclasses
from collections.abc import (
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)

import tensorflow as tf

from .custom_gradients import GradientGraph

NodeDef = tf.compat.v1.NodeDef
Nodes = MutableMapping[str, NodeDef]  # by name

# Ops that read only the shape of their input, none of its values.
SHAPE_OPS = {"Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike"}


class CannotOpen(Exception):
    """A function cannot be turned into a flat graph; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class FlatGraph:
    """A pure graph from inputs and values of variables to outputs and updates.

    Args:
        nodes: The nodes by name, in no particular order.
        versions: TensorFlow's version stamp of the graph, needed to import it.
        library: Functions that the graph still refers to (none in most graphs).
        inputs: Name of the placeholder of each input, in flattened order.
        outputs: Name of each output tensor, in flattened order.
        variables: For each placeholder of a variable's value, the position of the
            variable in the encoder's list.
        resources: For each placeholder of a captured resource, such as a lookup table,
            its position in the network's list of resources.
        updates: The tensor with the new value of each variable that the function
            writes, by the variable's position.
        input_specs: Shape and dtype of each input.
        value_specs: Shape and dtype of each variable's value, by placeholder.
        gradients: The custom gradients, by the name in the nodes' attribute.
        seed: Name of the placeholder of the random seed, int32 `[2]`; `None` if the
            graph draws no random numbers.
    """

    nodes: Nodes
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

    def feeds(
        self,
        inputs: Sequence[tf.Tensor],
        values: Mapping[int, tf.Tensor],
        resources: Sequence[tf.Tensor] = (),
        seed: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the tensors that replace the placeholders, by full name.

        Values of variables and resources are by position; the seed is int32 `[2]`.
        """
        feeds = dict(zip(self.inputs, inputs, strict=True))
        variables = self.variables.items()
        feeds |= {name: values[p] for name, p in variables if p in values}
        # `tf.identity` makes the graph that is being built capture the eager resource.
        feeds |= {name: tf.identity(resources[i]) for name, i in self.resources.items()}
        if self.seed and seed is not None:
            feeds[self.seed] = seed
        return {tensor_of(name): tensor for name, tensor in feeds.items()}


def node_of(tensor: str) -> str:
    """Returns the name of a tensor's node: `"a/b:1"` and `"^a/b"` give `"a/b"`."""
    return tensor.removeprefix("^").split(":")[0]


def tensor_of(name: str) -> str:
    """Returns the full name of a tensor: `"a/b"` gives `"a/b:0"`."""
    return name if ":" in name else f"{name}:0"


def data_inputs(node: NodeDef) -> list[str]:
    """Returns the names of a node's input tensors, without control edges."""
    return [name for name in node.input if not name.startswith("^")]


def needed_nodes(
    nodes: Nodes,
    tensors: Iterable[str],
    stop: Collection[str] = (),
) -> set[str]:
    """Returns the names of the nodes from which some tensors are computed.

    Args:
        nodes: The nodes by name.
        tensors: Names of the tensors.
        stop: Names of nodes at which the search ends; they are left out.
    """
    needed: set[str] = set()
    stack = [node_of(tensor) for tensor in tensors]
    while stack:
        name = stack.pop()
        if name in needed or name in stop:
            continue
        needed.add(name)
        stack.extend(node_of(tensor) for tensor in data_inputs(nodes[name]))
    return needed


def topological_order(nodes: Nodes, tensors: Iterable[str]) -> list[str]:
    """Lists the nodes from which some tensors are computed, each after its inputs.

    The order is depth-first: what the first tensor needs comes first.
    """
    order: list[str] = []
    seen: set[str] = set()
    for end in map(node_of, tensors):
        stack = [] if end in seen else [(end, iter(data_inputs(nodes[end])))]
        seen.add(end)
        while stack:
            name, inputs = stack[-1]
            for parent in map(node_of, inputs):
                if parent not in seen:
                    seen.add(parent)
                    stack.append((parent, iter(data_inputs(nodes[parent]))))
                    break
            else:
                order.append(name)
                stack.pop()
    return order


def add_node(
    nodes: Nodes,
    name: str,
    op: str,
    inputs: Iterable[str],
    **attributes,
) -> str:
    """Adds a node, or replaces the node of that name, and returns the name.

    Inputs are names of nodes, tensors or control edges (`"^name"`); attributes are
    dtypes, shapes, numbers, bytes or `AttrValue`.
    """
    node = NodeDef(name=name, op=op)
    node.input.extend(i if i.startswith("^") else tensor_of(i) for i in inputs)
    for key, value in attributes.items():
        node.attr[key].CopyFrom(_attribute(value))
    nodes[name] = node
    return name


def _attribute(value) -> tf.compat.v1.AttrValue:
    make = tf.compat.v1.AttrValue
    match value:
        case tf.DType():
            return make(type=value.as_datatype_enum)
        case tf.TensorShape():
            return make(shape=value.as_proto())
        case bool():
            return make(b=value)
        case int():
            return make(i=value)
        case bytes():
            return make(s=value)
    return value


def add_constant(nodes: Nodes, name: str, value, dtype: tf.DType) -> str:
    """Adds a `Const` node, or replaces the node of that name, and returns the name."""
    add_node(nodes, name, "Const", [], dtype=dtype)
    proto = tf.make_tensor_proto(value, dtype=dtype)
    nodes[name].attr["value"].tensor.CopyFrom(proto)
    return name


def copy_node(node: NodeDef) -> NodeDef:
    """Copies a node; nodes of a flat graph are shared and must not be changed."""
    copy = NodeDef()
    copy.CopyFrom(node)
    return copy


def without_control(node: NodeDef) -> NodeDef:
    """Copies a node without its control edges, device, colocation and shape hints."""
    copy = copy_node(node)
    del copy.input[:]
    copy.input.extend(data_inputs(node))
    copy.device = ""
    for hint in ("_class", "_output_shapes"):
        if hint in copy.attr:
            del copy.attr[hint]
    return copy


def as_graph_def(graph: FlatGraph, names: Iterable[str]) -> tf.compat.v1.GraphDef:
    """Returns a GraphDef of some nodes, without placeholders: these are fed later."""
    # XLA cannot compile a placeholder, used or not, so none may be imported.
    nodes = (graph.nodes[name] for name in sorted(names))
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    definition.node.extend(node for node in nodes if node.op != "Placeholder")
    return definition
