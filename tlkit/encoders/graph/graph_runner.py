"""Runs the nodes of a flat graph: puts them into the graph that is being traced.

There are three ways:

* `import_nodes` imports them. A gradient tape does not record imported nodes unless a
  `tf.function` contains them (`run_nodes`).
* `rebuild_nodes` calls TensorFlow's function for each node. Training uses this, since
  XLA would compile a `tf.function` of imported nodes again for every batch: its
  backward pass is a second function, which receives tensors of the forward pass, such
  as the axes of a transposition. XLA needs axes at compile time, cannot trace them from
  one function to the other, and treats all inputs of the forward function, the batch
  included, as constants.
* `run_graph` imports a whole graph into a function of a SavedModel, with gradients that
  TensorFlow can save.

Tested in tests/encoders/test_forms.py and tests/encoders/test_xla_report.py.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from .custom_gradients import (
    GRADIENT_ATTRIBUTE,
    MISSING_GRADIENT,
    ORIGINAL_NAME,
    GradientGraph,
    with_custom_gradient,
)
from .flat_graph import FlatGraph, as_graph_def, needed_nodes, tensor_of

_SCOPE = "network"
_MISSING_PREFIX = "CustomGradient-lost"
_gradient_counter = itertools.count()


def import_nodes(
    definition: tf.compat.v1.GraphDef,
    tensors: Mapping[str, tf.Tensor],
    outputs: Sequence[str],
) -> list[tf.Tensor]:
    """Imports nodes into the current graph.

    Args:
        definition: The nodes, without the placeholders.
        tensors: The tensors that replace the placeholders, by full name.
        outputs: Full names of the tensors to return; some may be in `tensors`.

    Returns:
        The tensors named in `outputs`.
    """
    used = {name for node in definition.node for name in node.input}
    computed = [name for name in outputs if name not in tensors]
    results = tf.graph_util.import_graph_def(
        definition,
        {name: tensor for name, tensor in tensors.items() if name in used},
        computed,
        name="encoder",
    )
    by_name = dict(zip(computed, results, strict=True)) | tensors
    return [by_name[name] for name in outputs]


def run_nodes(
    definition: tf.compat.v1.GraphDef,
    tensors: Mapping[str, tf.Tensor],
    outputs: Sequence[str],
) -> list[tf.Tensor]:
    """Runs nodes once, eagerly or in a graph.

    Arguments and result are those of `import_nodes`.
    """
    names = list(tensors)

    @tf.function(autograph=False)
    def run(values):
        return import_nodes(definition, dict(zip(names, values, strict=True)), outputs)

    values = list(tensors.values())
    # If `run` were called directly, TensorFlow would warn of too many traces.
    return run.get_concrete_function(values)(values)


def can_rebuild(definition: tf.compat.v1.GraphDef) -> bool:
    """Tells whether `tf.raw_ops` has a function for every node.

    Ops of old SavedModels may have none.
    """
    types = {node.op for node in definition.node} - {"Const"}
    return not definition.library.function and all(
        hasattr(tf.raw_ops, op) for op in types
    )


def rebuild_nodes(
    definition: tf.compat.v1.GraphDef,
    tensors: Mapping[str, tf.Tensor],
    outputs: Sequence[str],
) -> list[tf.Tensor]:
    """Builds nodes in the current graph by calling `tf.raw_ops` for each.

    Arguments and result are those of `import_nodes`.
    """
    used = {name for node in definition.node for name in node.input}
    # In a scratch graph, TensorFlow lists the operations in topological order and with
    # all attributes.
    with tf.Graph().as_default() as graph:
        placeholders = {
            name: tf.compat.v1.placeholder(tensor.dtype)
            for name, tensor in tensors.items()
            if name in used
        }
        tf.graph_util.import_graph_def(definition, placeholders, name=_SCOPE)
    rebuilt = {scratch.name: tensors[name] for name, scratch in placeholders.items()}
    with tf.name_scope("encoder"):
        for op in graph.get_operations():
            if op.type != "Placeholder":
                results = _rebuild(op, [rebuilt[tensor.name] for tensor in op.inputs])
                names = [tensor.name for tensor in op.outputs]
                rebuilt |= dict(zip(names, results, strict=True))
    return [tensors[n] if n in tensors else rebuilt[f"{_SCOPE}/{n}"] for n in outputs]


def _rebuild(op: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    if op.type == "Const":
        value = tf.make_ndarray(op.get_attr("value"))
        return [tf.constant(value, op.outputs[0].dtype, name=_name(op))]
    if GRADIENT_ATTRIBUTE in op.node_def.attr:
        return with_custom_gradient(op, lambda *x: _call_op(op, list(x)), inputs)
    return _call_op(op, inputs)


def _call_op(op: tf.Operation, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Calls an op's function in `tf.raw_ops` with the op's attributes."""
    arguments, inferred = {}, set()
    for argument in op.op_def.input_arg:
        number, types = argument.number_attr, argument.type_list_attr
        inferred |= {argument.type_attr, number, types}
        if number or types:  # the argument is a list of tensors
            count = op.get_attr(number) if number else len(op.get_attr(types))
            arguments[argument.name], inputs = inputs[:count], inputs[count:]
        else:
            arguments[argument.name], *inputs = inputs
    attributes = [a.name for a in op.op_def.attr if a.name not in inferred]
    arguments |= {name: op.get_attr(name) for name in attributes}
    function = getattr(tf.raw_ops, op.type)
    renamed = _python_names(function, arguments)
    arguments = {renamed.get(key, key): value for key, value in arguments.items()}
    return tf.nest.flatten(function(**arguments, name=_name(op)))


def _python_names(function: Callable, names: Collection[str]) -> dict[str, str]:
    """Maps arguments to their Python names where these differ from those in graphs.

    A few old ops have such arguments: `reduction_indices` is `axis` in Python.
    """
    parameters = inspect.signature(function).parameters
    others = [key for key in parameters if key not in names and key != "name"]
    return dict(zip((n for n in names if n not in parameters), others, strict=True))


def _name(op: tf.Operation) -> str:
    return op.name.removeprefix(f"{_SCOPE}/")


def pruned(graph: FlatGraph) -> FlatGraph:
    """Removes the nodes that neither the outputs nor the updates need.

    An encoder that was loaded for one of its outputs still has the nodes of the others.
    """
    needed = needed_nodes(graph.nodes, [*graph.outputs, *graph.updates.values()])
    return dataclasses.replace(
        graph,
        nodes={name: graph.nodes[name] for name in needed},
        variables={k: p for k, p in graph.variables.items() if k in needed},
        resources={k: i for k, i in graph.resources.items() if k in needed},
    )


def run_graph(
    graph: FlatGraph,
    inputs: Sequence[tf.Tensor],
    variables: Mapping[int, tf.Variable],
    resources: Sequence[tf.Tensor],
) -> tuple[list[tf.Tensor], dict[int, tf.Tensor]]:
    """Imports a flat graph into a `tf.function` that will be saved in a SavedModel.

    `variables` and `resources` are by position. Returns the outputs, and the new values
    of the variables that the graph writes, by position.
    """
    values = {p: variables[p].read_value() for p in set(graph.variables.values())}
    seed = None
    if graph.seed:
        # One seed for each call, to which each random op adds its own key.
        seed = tf.random.uniform((2,), maxval=tf.int32.max, dtype=tf.int32)
    tensors = graph.feeds(inputs, values, resources, seed)
    definition = as_graph_def(graph, graph.nodes)
    holders = _make_gradients_savable(definition, graph.gradients)
    names = [*graph.outputs, *graph.updates.values(), *map(tensor_of, holders)]
    results = iter(import_nodes(definition, tensors, names))
    outputs = [next(results) for _ in graph.outputs]
    updates = {position: next(results) for position in graph.updates}
    for holder in holders.values():
        holder.append(next(results).op)
    return outputs, updates


def _make_gradients_savable(
    definition: tf.compat.v1.GraphDef, gradients: Mapping[str, GradientGraph]
) -> dict[str, list[Any]]:
    """Replaces custom gradients by ones that TensorFlow can save, in place.

    TensorFlow saves a gradient by tracing its function, but does not pass the op to it.
    So each node gets a gradient function of its own, which reads the op from a list.

    Returns:
        An empty list for each node with a custom gradient. The caller must append the
        node's op to it after the import.
    """
    holders: dict[str, list[Any]] = {}
    for node in definition.node:
        if GRADIENT_ATTRIBUTE not in node.attr:  # reading a missing attribute adds it
            continue
        name = node.attr[GRADIENT_ATTRIBUTE].s.decode()
        if name == MISSING_GRADIENT:
            # No process registers this name, so computing the gradient fails.
            original = node.attr[ORIGINAL_NAME].s.decode()
            if not original.startswith(_MISSING_PREFIX):
                original = f"{_MISSING_PREFIX}-{original}"
            node.attr[GRADIENT_ATTRIBUTE].s = original.encode()
            del node.attr[ORIGINAL_NAME]
        elif name in gradients:
            unique_name = f"{name}-{next(_gradient_counter)}"
            holder = holders[node.name] = []
            tf.RegisterGradient(unique_name)(_gradient(gradients[name], holder))
            node.attr[GRADIENT_ATTRIBUTE].s = unique_name.encode()
    return holders


def _gradient(gradient: GradientGraph, holder: list[Any]) -> Callable:
    @tf.autograph.experimental.do_not_convert
    def call(_, *upstream):
        return gradient(holder[0], *upstream)

    return call
