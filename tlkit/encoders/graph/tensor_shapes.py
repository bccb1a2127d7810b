"""Infers how shapes in a graph depend on the shapes of the graph's inputs.

The attention mask of a BERT takes its shape from the embeddings. So each layer's graph
leads back to the embeddings, although none of their values is used, and the graph
cannot be cut between layers. If a shape follows from the inputs' shapes, `untie_shapes`
computes it from the inputs instead, which makes these cuts possible.

Tested in tests/encoders/graph/test_flattener.py.
"""

import dataclasses
import itertools

import tensorflow as tf

from .flat_graph import (
    SHAPE_OPS,
    FlatGraph,
    add_constant,
    add_node,
    as_graph_def,
    data_inputs,
    node_of,
    tensor_of,
)

# Sizes to try for unknown input dimensions. Each row has two sets: if a dimension in
# the graph has the same size with both sets, it is a constant. A row is used only if
# the rows before it do not fit the graph: primes, multiples of 32, small primes.
_PROBES = (
    ((211, 223, 227, 229, 233, 239), (241, 251, 257, 263, 269, 271)),
    ((416, 544, 608, 736, 928, 992), (1184, 1312, 1376, 1504, 1696, 1888)),
    ((17, 19, 23, 29, 31, 37), (41, 43, 47, 53, 59, 61)),
)


def untie_shapes(graph: FlatGraph) -> FlatGraph:
    """Replaces shape ops by ops that read only the shapes of the inputs.

    The graph's static shapes are inferred for two sets of input sizes. A dimension that
    is equal in both is a constant. A dimension that equals the size of an unknown input
    dimension in both is that dimension. An op with any other dimension stays.
    """
    ops = [n for n in graph.nodes.values() if n.op in SHAPE_OPS]
    if not ops:
        return graph
    tensors = [tensor_of(data_inputs(node)[0]) for node in ops]
    sizes, inferred = _probe(graph, tensors)
    nodes = dict(graph.nodes)
    for node, *shapes in zip(ops, *inferred, strict=True):
        dimensions = _solve(shapes, sizes)
        if dimensions is not None:
            _replace(nodes, node, dimensions, graph.inputs)
    return dataclasses.replace(graph, nodes=nodes)


def static_shapes(graph: FlatGraph, tensors: list[str]) -> list[tf.TensorShape]:
    """Infers the static shapes of tensors, which are given by their full names.

    A size that depends on the inputs' sizes is `None`. The rank is unknown if nothing
    can be inferred.
    """
    pairs = probed_shapes(graph, tensors)
    return [one.most_specific_compatible_shape(two) for one, two in pairs]


def probed_shapes(
    graph: FlatGraph, tensors: list[str]
) -> list[tuple[tf.TensorShape, tf.TensorShape]]:
    """Infers the shapes of tensors for two different sets of input sizes."""
    _, inferred = _probe(graph, tensors)
    return list(zip(*inferred, strict=True))


def _probe(graph: FlatGraph, tensors: list[str]):
    """Infers the shapes of tensors for two sets of sizes of unknown input dimensions.

    Returns the two sets as dicts by (input, axis), and the two lists of shapes.
    """
    # First try different sizes for each input. If the import of the graph fails, inputs
    # must have equal sizes (token ids, mask and type ids), and these are tried.
    for equal_inputs, probes in itertools.product((False, True), _PROBES):
        sizes = [_sizes(graph.input_specs, equal_inputs, probe) for probe in probes]
        if sizes[0] is None:
            continue
        try:
            return sizes, [_infer(graph, probed, tensors) for probed in sizes]
        except ValueError:
            continue
    return [{}, {}], [[tf.TensorShape(None)] * len(tensors)] * 2


def _sizes(specs, equal_inputs: bool, probe) -> dict[tuple[int, int], int] | None:
    """Assigns a size to each unknown dimension by (input, axis).

    All inputs have the same batch size; with `equal_inputs` also the same other sizes.
    Returns `None` if the probe has too few sizes.
    """
    sizes: dict[tuple[int, int], int] = {}
    keys: list = []
    for i, axis in _unknown_dimensions(specs):
        key = axis if equal_inputs or axis == 0 else (i, axis)
        if key not in keys:
            keys.append(key)
        if len(keys) > len(probe):
            return None
        sizes[i, axis] = probe[keys.index(key)]
    return sizes


def _unknown_dimensions(specs) -> list[tuple[int, int]]:
    return [
        (i, axis)
        for i, spec in enumerate(specs)
        if spec.shape.rank is not None
        for axis, size in enumerate(spec.shape)
        if size is None
    ]


def _infer(graph: FlatGraph, sizes, tensors: list[str]) -> list[tf.TensorShape]:
    """Infers the static shapes of tensors for given sizes of unknown dimensions."""
    shapes = []
    for i, spec in enumerate(graph.input_specs):
        known = spec.shape.rank is not None
        axes = enumerate(spec.shape if known else ())
        shape = [sizes.get((i, axis), size) for axis, size in axes]
        shapes.append(shape if known else None)
    operations = operations_with_shapes(graph, shapes)
    outputs = (tensor.split(":") for tensor in tensors)
    return [operations[name].outputs[int(k)].shape for name, k in outputs]


def operations_with_shapes(graph: FlatGraph, shapes) -> dict[str, tf.Operation]:
    """Imports a graph for given shapes of its inputs; TensorFlow infers all others.

    Returns the operations by name, placeholders included.
    """
    specs = dict(graph.value_specs)
    for name, shape, spec in zip(graph.inputs, shapes, graph.input_specs, strict=True):
        specs[name] = tf.TensorSpec(shape, spec.dtype)
    if graph.seed:
        specs[graph.seed] = tf.TensorSpec([2], tf.int32)
    for name in graph.resources:
        dtype = tf.as_dtype(graph.nodes[name].attr["dtype"].type)
        specs[name] = tf.TensorSpec(None, dtype)
    used = {t for n in graph.nodes.values() for t in map(tensor_of, data_inputs(n))}
    with tf.Graph().as_default() as imported:
        placeholders = {
            tensor_of(name): tf.compat.v1.placeholder(spec.dtype, spec.shape)
            for name, spec in specs.items()
        }
        fed = {name: tensor for name, tensor in placeholders.items() if name in used}
        definition = as_graph_def(graph, graph.nodes)
        tf.graph_util.import_graph_def(definition, fed, name="imported")
    return {node_of(name): tensor.op for name, tensor in placeholders.items()} | {
        op.name.removeprefix("imported/"): op
        for op in imported.get_operations()
        if op.name.startswith("imported/")
    }


def _solve(shapes, sizes) -> list[int | tuple[int, int]] | None:
    """Expresses each dimension of a shape as a number or as an equal (input, axis).

    Returns `None` if that fails for any dimension.
    """
    first, second = shapes
    if first.rank is None or second.rank != first.rank:
        return None
    dimensions: list[int | tuple[int, int]] = []
    for pair in zip(first, second, strict=True):
        matches = [key for key in sizes[0] if pair == (sizes[0][key], sizes[1][key])]
        if None in pair or (pair[0] != pair[1] and not matches):
            return None
        dimensions.append(matches[0] if matches else pair[0])
    return dimensions


def _replace(nodes: dict, node, dimensions, inputs: tuple[str, ...]) -> None:
    """Replaces a shape op by nodes that compute its result from the inputs' shapes."""
    name, op = node.name, node.op
    if op == "Rank":
        add_constant(nodes, name, len(dimensions), tf.int32)
        return
    out = tf.as_dtype(node.attr["out_type"].type) if op in ("Shape", "Size") else None
    shape_name = name if op == "Shape" else f"{name}/shape"
    shape = _add_shape(nodes, shape_name, dimensions, inputs, out or tf.int32)
    if op == "Size":
        axes = add_constant(nodes, f"{name}/axes", [0], tf.int32)
        add_node(nodes, name, "Prod", [shape, axes], T=out, Tidx=tf.int32)
    elif op in ("OnesLike", "ZerosLike"):
        dtype = tf.as_dtype(node.attr["T"].type)
        value = add_constant(nodes, f"{name}/value", int(op == "OnesLike"), dtype)
        add_node(nodes, name, "Fill", [shape, value], T=dtype, index_type=tf.int32)


def _add_shape(nodes: dict, name: str, dimensions, inputs, dtype: tf.DType) -> str:
    """Adds nodes that compute a shape vector from numbers and input dimensions."""
    parts = []
    for k, dimension in enumerate(dimensions):
        part = f"{name}/dimension_{k}"
        if isinstance(dimension, int):
            add_constant(nodes, part, dimension, dtype)
        else:
            _add_dimension(nodes, part, inputs[dimension[0]], dimension[1], dtype)
        parts.append(part)
    if not parts:
        return add_constant(nodes, name, [], dtype)
    return add_node(nodes, name, "Pack", parts, T=dtype, N=len(parts), axis=0)


def _add_dimension(nodes: dict, name: str, source: str, axis: int, dtype) -> None:
    """Adds nodes that compute the size of an input along an axis."""
    shape = f"{source}/shape_{dtype.name}"
    if shape not in nodes:
        types = {"T": nodes[source].attr["dtype"], "out_type": dtype}
        add_node(nodes, shape, "Shape", [source], **types)
    index = add_constant(nodes, f"{name}/at", axis, tf.int32)
    zero = add_constant(nodes, f"{name}/axis", 0, tf.int32)
    types = {"Tparams": dtype, "Tindices": tf.int32, "Taxis": tf.int32}
    add_node(nodes, name, "GatherV2", [shape, index, zero], batch_dims=0, **types)
