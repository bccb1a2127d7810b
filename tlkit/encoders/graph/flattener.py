"""Turns a restored function into one flat, pure graph.

A restored function is nested: functions call functions, variables are accessed through
resource handles, and control edges order the side effects. `flatten` does four things:

1. It inlines all calls.
2. It replaces reads and writes of variables by plain tensors (`graph_variables`).
3. It lifts custom gradients out of the graph: each becomes a pure graph of its own
   (`custom_gradients`).
4. It makes random ops stateless (`random_ops`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

# Private: TensorFlow has no public way to inline calls.
# tests/encoders/graph/test_flattener.py notices when it changes.
from tensorflow.python.framework.convert_to_constants import (
    _run_inline_graph_optimization,
)

from .custom_gradients import (
    GRADIENT_ATTRIBUTE,
    MISSING_GRADIENT,
    ORIGINAL_NAME,
    GradientGraph,
    find_function,
)
from .flat_graph import (
    CannotOpen,
    FlatGraph,
    NodeDef,
    Nodes,
    add_constant,
    needed_nodes,
    node_of,
    without_control,
)
from .graph_variables import Purifier
from .random_ops import make_stateless

_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "For"}
_OPAQUE = {
    "XlaCallModule": "a JAX export",
    "PyFunc": "Python code",
    "EagerPyFunc": "Python code",
    "PyFuncStateless": "Python code",
}


def flatten(
    function: Any,
    variables: Mapping[int, tuple[int, tf.TensorSpec]],
    resources: list[tf.Tensor],
    constants: Sequence[tf.Tensor] = (),
) -> FlatGraph:
    """Turns a restored function into one flat, pure graph.

    Args:
        function: The concrete function, such as one of a SavedModel's `__call__`.
        variables: Position and spec of each variable, by the `id` of its handle.
        resources: Captured tensors that are neither variables nor constants (such as
            a table's handle); those of this function are appended in place.
        constants: Values of the function's last inputs, which become constants.

    Returns:
        The flat graph.

    Raises:
        CannotOpen: The function cannot be made flat and pure; the message says why.
    """
    graph = inline(function)
    nodes = {node.name: node for node in graph.node}
    purifier = Purifier(nodes)
    captured = {inner.op.name for _, inner in function.graph.captures}
    for outer, inner in function.graph.captures:
        purifier.bind(inner.op.name, outer, variables, resources)
    arguments = [tensor for tensor in function.inputs if tensor.op.name not in captured]
    arguments = _bind_constants(nodes, arguments, constants)
    purifier.rewrite()
    purifier.check_reads_precede_writes([tensor.name for tensor in function.outputs])
    gradients = lift_gradients(nodes)
    purifier.drop_identities()
    inputs = tuple(tensor.op.name for tensor in arguments)
    outputs = tuple(purifier.source(tensor.name) for tensor in function.outputs)
    updates = {k: purifier.source(tensor) for k, tensor in purifier.updates.items()}
    needed = needed_nodes(nodes, [*outputs, *updates.values(), *inputs])
    pure_nodes = {name: without_control(nodes[name]) for name in needed}
    seed = make_stateless(pure_nodes)
    return FlatGraph(
        nodes=pure_nodes,
        versions=graph.versions,
        library=graph.library,
        inputs=inputs,
        outputs=outputs,
        variables={k: v for k, v in purifier.variables.items() if k in needed},
        resources={k: v for k, v in purifier.resources.items() if k in needed},
        updates=updates,
        input_specs=tuple(tf.TensorSpec(t.shape, t.dtype) for t in arguments),
        value_specs={k: v for k, v in purifier.specs.items() if k in needed},
        gradients=gradients,
        seed=seed,
    )


def _bind_constants(
    nodes: dict, arguments: list, constants: Sequence[tf.Tensor]
) -> list:
    """Replaces a function's last arguments by constants and returns the others."""
    first = len(arguments) - len(constants)
    for tensor, value in zip(arguments[first:], constants, strict=True):
        add_constant(nodes, tensor.op.name, value.numpy(), value.dtype)
    if any(tensor.dtype in (tf.resource, tf.variant) for tensor in arguments[:first]):
        raise CannotOpen("it takes a resource as an argument")
    return arguments[:first]


def inline(function: Any) -> tf.compat.v1.GraphDef:
    """Returns the graph of a concrete function with every call inlined.

    Raises:
        CannotOpen: The function holds control flow or an op that hides its
            computation, such as Python code.
    """
    _check_not_opaque(function.graph.as_graph_def())
    graph = _run_inline_graph_optimization(
        function, lower_control_flow=False, aggressive_inlining=True
    )
    for node in graph.node:
        if node.op in _CONTROL_FLOW:
            raise CannotOpen(f"it has control flow (op {node.op}, `{node.name}`)")
        if node.op in _CALLS:
            raise CannotOpen(f"a call could not be inlined (`{node.name}`)")
    return graph


def _check_not_opaque(graph: tf.compat.v1.GraphDef) -> None:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    for node in (node for body in bodies for node in body):
        if node.op in _OPAQUE:
            raise CannotOpen(f"it holds {_OPAQUE[node.op]} (op {node.op})")


def lift_gradients(nodes: Nodes) -> dict[str, GradientGraph]:
    """Turns the custom gradients of nodes into pure graphs and renames them, in place.

    Args:
        nodes: The nodes of an inlined graph, with the names that inlining gave them.

    Returns:
        The gradients by their new names, without those that were not saved with the
        SavedModel. Computing such a gradient raises `EncoderError`.

    Raises:
        CannotOpen: A gradient needs a tensor that is not in the graph.
    """
    gradients: dict[str, GradientGraph] = {}
    for node in list(nodes.values()):
        if GRADIENT_ATTRIBUTE in node.attr:
            gradients |= _lift_gradient(nodes, node)
    return gradients


def _lift_gradient(nodes: dict, node: NodeDef) -> dict[str, GradientGraph]:
    name = node.attr[GRADIENT_ATTRIBUTE].s.decode()
    try:
        function = find_function(name)
    except LookupError:
        function = None
    if function is None:
        # A name that tf.custom_gradient made up is valid only in the process that saved
        # the SavedModel; here another gradient may have it. Names that libraries
        # register are valid in every process.
        if name.startswith("CustomGradient-"):
            node.attr[ORIGINAL_NAME].s = name.encode()
            node.attr[GRADIENT_ATTRIBUTE].s = MISSING_GRADIENT.encode()
        return {}
    if node.op != "IdentityN":
        raise CannotOpen(f"a custom gradient stands at an op {node.op}")
    tensors = [outer for outer, _ in function.graph.captures]
    captured = [_inlined_name(nodes, node.name, name, t) for t in tensors]
    gradient = _gradient_graph(function, len(node.input))
    node.input.extend(captured)
    types = node.attr["T"].list.type
    types.extend(tensor.dtype.as_datatype_enum for tensor in tensors)
    node.attr[GRADIENT_ATTRIBUTE].s = gradient.name.encode()
    return {gradient.name: gradient}


def _inlined_name(nodes: dict, at: str, gradient: str, tensor: Any) -> str:
    """Returns the name that a captured tensor of a gradient has in the inlined graph.

    The tensor belongs to the graph before inlining; `at` is the name of the gradient's
    `IdentityN` in the inlined graph.
    """
    if tensor.dtype in (tf.resource, tf.variant):
        raise CannotOpen(f"a custom gradient reads a variable (`{at}`)")
    if not hasattr(tensor, "graph") or not isinstance(tensor.graph, tf.Graph):
        raise CannotOpen(f"a custom gradient captures a constant (`{at}`)")
    for op in tensor.graph.get_operations():
        named = op.type == "IdentityN" and _gradient_name(op) == gradient
        if named and at.endswith(op.name):  # inlining prepends a scope
            name = at.removesuffix(op.name) + tensor.name
            if node_of(name) in nodes:
                return name
    raise CannotOpen(
        f"a custom gradient reads a tensor that is not in the graph (`{at}`)"
    )


def _gradient_name(op: tf.Operation) -> str | None:
    try:
        return op.get_attr(GRADIENT_ATTRIBUTE).decode()
    except ValueError:
        return None


def _gradient_graph(function: Any, input_count: int) -> GradientGraph:
    """Turns the function of an op's custom gradient into a pure graph."""
    graph = inline(function)
    nodes = {node.name: node for node in graph.node}
    # `structured_outputs` may contain None, which `outputs` leaves out.
    tensors = iter(function.outputs)
    outputs = [
        None if value is None else next(tensors).name
        for value in tf.nest.flatten(function.structured_outputs)
    ]
    needed = needed_nodes(nodes, [name for name in outputs if name])
    inputs = tuple(tensor.op.name for tensor in function.inputs)
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    for name in sorted(needed - set(inputs)):
        node = nodes[name]
        if any(t.type == tf.resource.as_datatype_enum for t in node.attr.values()):
            raise CannotOpen(f"a custom gradient reads a variable (`{name}`)")
        plain = without_control(node)
        if GRADIENT_ATTRIBUTE in plain.attr:  # drops gradients of gradients
            del plain.attr[GRADIENT_ATTRIBUTE]
        definition.node.append(plain)
    if len(outputs) != input_count:
        raise CannotOpen("a custom gradient does not fit the op that it stands at")
    return GradientGraph(definition, inputs, tuple(outputs))
