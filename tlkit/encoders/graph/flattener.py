"""Turns a restored function into one flat, pure graph.

A restored function is a box of boxes: functions that call functions, variables that
are reached through handles, side effects that are ordered by control edges. Here the
calls are inlined, reads and writes of variables become plain tensors, and random ops
and custom gradients are put in forms that can be repeated and carried elsewhere.

Inlines the calls of a restored function, as TensorFlow does to fold variables.

Takes the custom gradients out of a restored graph; see `custom_gradients`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    _run_inline_graph_optimization,
)

from .custom_gradients import MISSING, NAMED, GradientGraph, find_function
from .flat_graph import (
    CannotOpen,
    FlatGraph,
    constant,
    node_of,
    reached,
    without_control,
)
from .graph_variables import Purifier
from .random_ops import key_random_ops


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
        resources: Captured tensors that are neither variables nor constants (a
            table's handle); extended in place by those of this function.
        constants: Values of the function's last inputs, which then are none.

    Returns:
        The flat graph.

    Raises:
        CannotOpen: The function has something in it that cannot be made pure; the
            text says what.
    """
    graph = inline(function)
    nodes = {node.name: node for node in graph.node}
    work = Purifier(nodes)
    captured = {inner.op.name for _, inner in function.graph.captures}
    for outer, inner in function.graph.captures:
        work.bind(inner.op.name, outer, variables, resources)
    given = [tensor for tensor in function.inputs if tensor.op.name not in captured]
    given = _bind_constants(nodes, given, constants)
    work.rewrite()
    work.refuse_reads_after_writes([tensor.name for tensor in function.outputs])
    gradients = lift_gradients(nodes)
    work.drop_identities()
    inputs = tuple(tensor.op.name for tensor in given)
    outputs = tuple(work.source(tensor.name) for tensor in function.outputs)
    updates = {k: work.source(tensor) for k, tensor in work.updates.items()}
    keep = reached(nodes, [*outputs, *updates.values(), *inputs], set())
    pure = {name: without_control(nodes[name]) for name in keep}
    seed = key_random_ops(pure)
    return FlatGraph(
        nodes=pure,
        versions=graph.versions,
        library=graph.library,
        inputs=inputs,
        outputs=outputs,
        variables={k: v for k, v in work.variables.items() if k in keep},
        resources={k: v for k, v in work.resources.items() if k in keep},
        updates=updates,
        input_specs=tuple(tf.TensorSpec(t.shape, t.dtype) for t in given),
        value_specs={k: v for k, v in work.specs.items() if k in keep},
        gradients=gradients,
        seed=seed,
    )


def _bind_constants(nodes: dict, given: list, constants: Sequence[tf.Tensor]) -> list:
    """Puts constants in the place of the last inputs; gives the inputs that remain."""
    first = len(given) - len(constants)
    for tensor, value in zip(given[first:], constants, strict=True):
        name = tensor.op.name
        nodes[name].CopyFrom(constant(name, value.numpy(), value.dtype))
    if any(tensor.dtype in (tf.resource, tf.variant) for tensor in given[:first]):
        raise CannotOpen("it takes a resource as an argument")
    return given[:first]


# === Inlining ===


CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "For"}
OPAQUE = {"XlaCallModule": "a JAX export", "PyFunc": "Python code"}
OPAQUE |= {"EagerPyFunc": "Python code", "PyFuncStateless": "Python code"}


def inline(function: Any) -> tf.compat.v1.GraphDef:
    """The graph of a concrete function with every call inlined.

    Args:
        function: A concrete function.

    Returns:
        The graph.

    Raises:
        CannotOpen: It holds control flow or ops that are closed boxes themselves.
    """
    _refuse_opaque(function.graph.as_graph_def())
    graph = _run_inline_graph_optimization(
        function, lower_control_flow=False, aggressive_inlining=True
    )
    for node in graph.node:
        if node.op in CONTROL_FLOW:
            raise CannotOpen(f"it has control flow (op {node.op}, `{node.name}`)")
        if node.op in CALLS:
            raise CannotOpen(f"a call could not be inlined (`{node.name}`)")
    return graph


def _refuse_opaque(graph: tf.compat.v1.GraphDef) -> None:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    for node in (node for body in bodies for node in body):
        if node.op in OPAQUE:
            raise CannotOpen(f"it holds {OPAQUE[node.op]} (op {node.op})")


# === Gradient lifting ===


def lift_gradients(nodes: dict[str, tf.compat.v1.NodeDef]) -> dict[str, GradientGraph]:
    """Replaces the custom gradients that nodes name by pure graphs, in place.

    Args:
        nodes: The nodes of an inlined graph, with the names that inlining gave them.

    Returns:
        The gradients by the names that the nodes have for them now. A gradient that
        was not saved is not among them: asking for it raises `EncoderError`.

    Raises:
        CannotOpen: A gradient needs something that is not in the graph.
    """
    gradients: dict[str, GradientGraph] = {}
    for node in list(nodes.values()):
        if NAMED in node.attr:
            gradients |= _lift(nodes, node)
    return gradients


def _lift(nodes: dict, node: tf.compat.v1.NodeDef) -> dict[str, GradientGraph]:
    name = node.attr[NAMED].s.decode()
    try:
        function = find_function(name)
    except LookupError:
        function = None
    if function is None:
        # Names that tf.custom_gradient makes up mean nothing in another process, and
        # may even be another's here. Those of a library are registered everywhere.
        if name.startswith("CustomGradient-"):
            node.attr["_tlkit_gradient"].s = name.encode()
            node.attr[NAMED].s = MISSING.encode()
        return {}
    if node.op != "IdentityN":
        raise CannotOpen(f"a custom gradient stands at an op {node.op}")
    captured = [_in_place(nodes, node.name, name, t) for t in _captured(function)]
    gradient = _gradient_graph(function, len(node.input))
    node.input.extend(tensor for tensor, _ in captured)
    types = node.attr["T"].list.type
    types.extend(dtype.as_datatype_enum for _, dtype in captured)
    node.attr[NAMED].s = gradient.name.encode()
    return {gradient.name: gradient}


def _captured(function: Any) -> list[tf.Tensor]:
    return [outer for outer, _ in function.graph.captures]


def _in_place(nodes: dict, at: str, name: str, tensor: Any) -> tuple[str, tf.DType]:
    """The tensor of the inlined graph that a captured one has become."""
    if tensor.dtype in (tf.resource, tf.variant):
        raise CannotOpen(f"a custom gradient reads a variable (`{at}`)")
    if not hasattr(tensor, "graph") or not isinstance(tensor.graph, tf.Graph):
        raise CannotOpen(f"a custom gradient captures a constant (`{at}`)")
    for op in tensor.graph.get_operations():
        if op.type == "IdentityN" and _names(op) == name and at.endswith(op.name):
            found = at.removesuffix(op.name) + tensor.name
            if node_of(found) in nodes:
                return found, tensor.dtype
    raise CannotOpen(f"a custom gradient reads what is not in the graph (`{at}`)")


def _names(op: tf.Operation) -> str | None:
    try:
        return op.get_attr(NAMED).decode()
    except ValueError:
        return None


def _gradient_graph(function: Any, count: int) -> GradientGraph:
    graph = inline(function)
    nodes = {node.name: node for node in graph.node}
    outputs = tf.nest.flatten(function.structured_outputs)
    # What the function gives are its `outputs`, less the None among them.
    made = iter(function.outputs)
    wanted = [None if value is None else next(made).name for value in outputs]
    keep = reached(nodes, [name for name in wanted if name], set())
    inputs = tuple(tensor.op.name for tensor in function.inputs)
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    for name in sorted(keep - set(inputs)):
        node = nodes[name]
        if any(t.type == tf.resource.as_datatype_enum for t in node.attr.values()):
            raise CannotOpen(f"a custom gradient reads a variable (`{name}`)")
        definition.node.append(_plain(node))
    if len(wanted) != count:
        raise CannotOpen("a custom gradient does not fit the op that it stands at")
    return GradientGraph(definition, inputs, tuple(wanted))


def _plain(node: tf.compat.v1.NodeDef) -> tf.compat.v1.NodeDef:
    """As in any flat graph, and without a gradient of its own."""
    copy = without_control(node)
    if NAMED in copy.attr:
        del copy.attr[NAMED]
    return copy
