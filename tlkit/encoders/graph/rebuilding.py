"""Builds a graph's nodes anew in the graph that is being built, one after the other.

An imported node is unknown to a gradient tape. A function around the imported nodes is
known to it, but then the backward pass is a function, too, and gets from the forward
one what it needs, the axes of a transposition among it. XLA must know these when it
compiles, cannot look through the border of the two, and so takes everything that the
forward function is given for constants, the batch too: it compiles anew for every
batch. Nodes that are built as TensorFlow's own functions build them have no such
border.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence

import tensorflow as tf

from .custom_gradients import NAMED, with_named_gradient

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
