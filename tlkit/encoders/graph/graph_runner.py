"""Stretches: what of a network is run at once, and what comes of it.

Builds a graph's nodes anew in the graph that is being built, one after the other.

An imported node is unknown to a gradient tape. A function around the imported nodes is
known to it, but then the backward pass is a function, too, and gets from the forward
one what it needs, the axes of a transposition among it. XLA must know these when it
compiles, cannot look through the border of the two, and so takes everything that the
forward function is given for constants, the batch too: it compiles anew for every
batch. Nodes that are built as TensorFlow's own functions build them have no such
border.

Puts a flat graph into the TensorFlow function that is being traced, to be saved.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from .custom_gradients import MISSING, NAMED, GradientGraph, with_named_gradient
from .flat_graph import FlatGraph, as_graph_def, reached, tensor_of


def run_nodes(definition, tensors: dict[str, tf.Tensor], wanted: list[str]):
    """Runs nodes, eagerly too."""
    names = list(tensors)

    @tf.function(autograph=False)
    def run(values):
        return import_nodes(definition, dict(zip(names, values, strict=True)), wanted)

    values = list(tensors.values())
    # Not called, or TensorFlow would count the calls and warn of too many traces.
    return run.get_concrete_function(values)(values)


def import_nodes(definition, tensors: dict[str, tf.Tensor], wanted: list[str]):
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


# === Rebuilding ===


_SCOPE = "network"


def can_rebuild(definition: tf.compat.v1.GraphDef) -> bool:
    """Whether TensorFlow has a function for every node; those of old files may lack."""
    types = {node.op for node in definition.node} - {"Const"}
    return not definition.library.function and all(
        hasattr(tf.raw_ops, op) for op in types
    )


def rebuild_nodes(
    definition: tf.compat.v1.GraphDef,
    tensors: Mapping[str, tf.Tensor],
    wanted: Sequence[str],
) -> list[tf.Tensor]:
    """Builds nodes in the current graph.

    Args:
        definition: The nodes, without the placeholders.
        tensors: What stands in for these, by the names of their tensors.
        wanted: Names of the tensors that are wanted, which may be among those given.

    Returns:
        The wanted tensors.
    """
    used = {name for node in definition.node for name in node.input}
    with tf.Graph().as_default() as graph:  # to have them parents first, with all attrs
        bound = {
            name: tf.compat.v1.placeholder(tensor.dtype)
            for name, tensor in tensors.items()
            if name in used
        }
        tf.graph_util.import_graph_def(definition, bound, name=_SCOPE)
    found = {given.name: tensors[name] for name, given in bound.items()}
    with tf.name_scope("encoder"):
        for op in graph.get_operations():
            if op.type != "Placeholder":
                made = _build(op, [found[tensor.name] for tensor in op.inputs])
                names = [tensor.name for tensor in op.outputs]
                found |= dict(zip(names, made, strict=True))
    return [tensors[n] if n in tensors else found[f"{_SCOPE}/{n}"] for n in wanted]


def _build(op: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    if op.type == "Const":
        value = tf.make_ndarray(op.get_attr("value"))
        return [tf.constant(value, op.outputs[0].dtype, name=_name(op))]
    if NAMED in op.node_def.attr:
        return with_named_gradient(op, lambda *x: _make(op, list(x)), inputs)
    return _make(op, inputs)


def _make(op: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    arguments, inferred = {}, set()
    for argument in op.op_def.input_arg:
        count, several = argument.number_attr, argument.type_list_attr
        inferred |= {argument.type_attr, count, several}
        if count or several:
            number = op.get_attr(count) if count else len(op.get_attr(several))
            arguments[argument.name], inputs = inputs[:number], inputs[number:]
        else:
            arguments[argument.name], *inputs = inputs
    attributes = [a.name for a in op.op_def.attr if a.name not in inferred]
    arguments |= {name: op.get_attr(name) for name in attributes}
    function = getattr(tf.raw_ops, op.type)
    renamed = _renamed(function, arguments)
    arguments = {renamed.get(key, key): value for key, value in arguments.items()}
    return tf.nest.flatten(function(**arguments, name=_name(op)))


def _renamed(function: Callable, names: Collection[str]) -> dict[str, str]:
    """What Python calls those arguments that have another name in graphs.

    Those of a few old ops do, such as `reduction_indices`, which is `axis`.
    """
    parameters = inspect.signature(function).parameters
    others = [key for key in parameters if key not in names and key != "name"]
    return dict(zip((n for n in names if n not in parameters), others, strict=True))


def _name(op: tf.Operation) -> str:
    return op.name.removeprefix(f"{_SCOPE}/")


# === Running graphs ===


_LOST = "CustomGradient-lost"
_counter = itertools.count()


def pruned(graph: FlatGraph) -> FlatGraph:
    """The graph without what neither its outputs nor its updates need.

    An encoder that was loaded for one of its outputs still has what makes the others.
    """
    keep = reached(graph.nodes, [*graph.outputs, *graph.updates.values()], set())
    return dataclasses.replace(
        graph,
        nodes={name: graph.nodes[name] for name in keep},
        variables={k: p for k, p in graph.variables.items() if k in keep},
        resources={k: i for k, i in graph.resources.items() if k in keep},
    )


def run_graph(
    graph: FlatGraph,
    inputs: Sequence[tf.Tensor],
    variables: Mapping[int, tf.Variable],
    resources: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], dict[int, tf.Tensor]]:
    """Imports a flat graph into the graph being built.

    Args:
        graph: The flat graph.
        inputs: Its inputs, in their order.
        variables: Its variables by position.
        resources: The captured resources that it may need.

    Returns:
        Its outputs, and the new values of variables by position.
    """
    tensors: dict[str, tf.Tensor] = dict(zip(graph.inputs, inputs, strict=True))
    values = {p: variables[p].read_value() for p in set(graph.variables.values())}
    tensors |= {name: values[position] for name, position in graph.variables.items()}
    tensors |= {n: tf.identity(resources[i]) for n, i in graph.resources.items()}
    if graph.seed:
        # One draw a call; each random op mixes its own key into it.
        limit = tf.int32.max
        tensors[graph.seed] = tf.random.uniform((2,), maxval=limit, dtype=tf.int32)
    definition = as_graph_def(graph, graph.nodes)
    ops = _free_gradients(definition, graph.gradients)
    bound = {tensor_of(name): tensor for name, tensor in tensors.items()}
    wanted = [*graph.outputs, *graph.updates.values(), *(f"{n}:0" for n in ops)]
    found = iter(import_nodes(definition, bound, wanted))
    outputs = [next(found) for _ in graph.outputs]
    updates = {position: next(found) for position in graph.updates}
    for op in ops.values():
        op.append(next(found).op)
    return outputs, updates


def _free_gradients(
    definition: tf.compat.v1.GraphDef, gradients: Mapping[str, GradientGraph]
) -> dict[str, list[Any]]:
    """Gives each node with a custom gradient one that TensorFlow can save, in place.

    TensorFlow saves a gradient by tracing it, and tells it nothing of the op that it
    is for. So each op gets one of its own.

    Returns:
        For each such node an empty list, into which its op has to be put.
    """
    ops: dict[str, list[Any]] = {}
    for node in definition.node:
        name = node.attr[NAMED].s.decode() if NAMED in node.attr else ""
        if name == MISSING:
            # A name that leads nowhere, in this process and the next.
            lost = node.attr["_tlkit_gradient"].s.decode()
            lost = lost if lost.startswith(_LOST) else f"{_LOST}-{lost}"
            node.attr[NAMED].s = lost.encode()
            del node.attr["_tlkit_gradient"]
        elif name in gradients:
            own = f"{name}-{next(_counter)}"
            ops[node.name] = []
            tf.RegisterGradient(own)(_gradient(gradients[name], ops[node.name]))
            node.attr[NAMED].s = own.encode()
    return ops


def _gradient(gradient: GradientGraph, op: list[Any]) -> Callable:
    @tf.autograph.experimental.do_not_convert
    def call(_, *upstream):
        return gradient(op[0], *upstream)

    return call
