"""Takes the custom gradients out of a restored graph; see `custom_gradients`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .custom_gradients import MISSING, NAMED, GradientGraph, find_function
from .flat_graph import CannotOpen, node_of, reached, without_control
from .inlining import inline


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
