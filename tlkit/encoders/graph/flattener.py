"""Turns a restored function into one flat, pure graph.

A restored function is a box of boxes: functions that call functions, variables that
are reached through handles, side effects that are ordered by control edges. Here the
calls are inlined, reads and writes of variables become plain tensors, and random ops
and custom gradients are put in forms that can be repeated and carried elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from .flat_graph import CannotOpen, FlatGraph, constant, reached, without_control
from .gradient_lifting import lift_gradients
from .graph_variables import Purifier
from .inlining import inline
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
