"""Unties pieces of a graph that hang together by nothing but a shape.

A BERT's attention mask takes its shape from the embeddings, so every layer's graph
leads back to them although no value of theirs passes. Where such a shape follows from
the inputs' shapes, it is computed from the inputs instead, and the graph can be cut.
"""

from __future__ import annotations

import dataclasses
import itertools

import tensorflow as tf

from .flat_graph import (
    SHAPE_LIKE,
    FlatGraph,
    as_graph_def,
    attribute,
    constant,
    data_inputs,
    make_node,
    tensor_of,
    type_attribute,
)

# Sizes that stand for unknown dimensions: two for each, so that what depends on one can
# be told from a constant. Then such as can be halved five times, and small ones.
_PROBES = (
    ((211, 223, 227, 229, 233, 239), (241, 251, 257, 263, 269, 271)),
    ((416, 544, 608, 736, 928, 992), (1184, 1312, 1376, 1504, 1696, 1888)),
    ((17, 19, 23, 29, 31, 37), (41, 43, 47, 53, 59, 61)),
)


def untie_shapes(graph: FlatGraph) -> FlatGraph:
    """Replaces shape-like ops by ones that look at the inputs' shapes only.

    The graph's static shapes are inferred for two sets of input sizes. A dimension
    that is the same in both is a constant; one that equals the size of an unknown
    dimension of an input in both is that dimension. Any other leaves its op as it is.

    Args:
        graph: The flat graph.

    Returns:
        The flat graph with shape-like ops replaced where that could be done.
    """
    ops = [n for n in graph.nodes.values() if n.op in SHAPE_LIKE]
    if not ops:
        return graph
    wanted = [tensor_of(data_inputs(node)[0]) for node in ops]
    sizes, inferred = _probe(graph, wanted)
    nodes = dict(graph.nodes)
    for node, *shapes in zip(ops, *inferred, strict=True):
        dimensions = _solve(shapes, sizes)
        if dimensions is not None:
            _replace(nodes, node, dimensions, graph.inputs)
    return dataclasses.replace(graph, nodes=nodes)


def static_shapes(graph: FlatGraph, tensors: list[str]) -> list[tf.TensorShape]:
    """Shapes of tensors; a size that depends on the inputs' sizes is `None`.

    Args:
        graph: The flat graph.
        tensors: Full names of some of its tensors.

    Returns:
        A shape for each; of unknown rank where nothing can be inferred.
    """
    pairs = probed_shapes(graph, tensors)
    return [one.most_specific_compatible_shape(two) for one, two in pairs]


def probed_shapes(
    graph: FlatGraph, tensors: list[str]
) -> list[tuple[tf.TensorShape, tf.TensorShape]]:
    """Shapes of tensors for two sets of sizes of the inputs, likewise."""
    _, inferred = _probe(graph, tensors)
    return list(zip(*inferred, strict=True))


def _probe(graph: FlatGraph, wanted: list[str]):
    """Shapes of `wanted` under two sets of sizes, and the sizes by (input, axis)."""
    # Inputs may have sizes of their own; token ids, mask and types must agree, which
    # shows as a graph that refuses different ones.
    for share, probes in itertools.product((False, True), _PROBES):
        sizes = [_sizes(graph.input_specs, share, probe) for probe in probes]
        if sizes[0] is None:
            continue
        try:
            return sizes, [_infer(graph, given, wanted) for given in sizes]
        except ValueError:
            continue
    return [{}, {}], [[tf.TensorShape(None)] * len(wanted)] * 2


def _sizes(specs, share: bool, probe) -> dict[tuple[int, int], int] | None:
    """A size of its own for each unknown dimension; the batch is always shared."""
    sizes: dict[tuple[int, int], int] = {}
    keys: list = []
    for i, axis in _unknown_dimensions(specs):
        key = axis if share or axis == 0 else (i, axis)
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


def _infer(graph: FlatGraph, sizes, wanted: list[str]) -> list[tf.TensorShape]:
    """Static shapes of the tensors `wanted` for given sizes of unknown dimensions."""
    with tf.Graph().as_default():
        specs = dict(graph.value_specs)
        for i, (name, spec) in enumerate(
            zip(graph.inputs, graph.input_specs, strict=True)
        ):
            rank = range(spec.shape.rank or 0)
            shape = [sizes.get((i, axis), spec.shape[axis]) for axis in rank]
            known = spec.shape.rank is not None
            specs[name] = tf.TensorSpec(shape if known else None, spec.dtype)
        if graph.seed:
            specs[graph.seed] = tf.TensorSpec([2], tf.int32)
        for name in graph.resources:
            dtype = tf.as_dtype(graph.nodes[name].attr["dtype"].type)
            specs[name] = tf.TensorSpec(None, dtype)
        used = {t for n in graph.nodes.values() for t in map(tensor_of, data_inputs(n))}
        bound = {
            f"{name}:0": tf.compat.v1.placeholder(spec.dtype, spec.shape)
            for name, spec in specs.items()
            if f"{name}:0" in used
        }
        direct = {name for name in wanted if name in bound}
        others = [name for name in wanted if name not in direct]
        tensors = tf.graph_util.import_graph_def(
            as_graph_def(graph, graph.nodes), bound, others
        )
    shapes = dict(zip(others, tensors, strict=True)) | {n: bound[n] for n in direct}
    return [shapes[name].shape for name in wanted]


def _solve(shapes, sizes) -> list[int | tuple[int, int]] | None:
    """Each dimension as a number or as the (input, axis) that it equals."""
    first, second = shapes
    if first.rank is None or second.rank != first.rank:
        return None
    found: list[int | tuple[int, int]] = []
    for pair in zip(first, second, strict=True):
        match = [p for p in sizes[0] if pair == (sizes[0][p], sizes[1][p])]
        if None in pair or (pair[0] != pair[1] and not match):
            return None
        found.append(match[0] if match else pair[0])
    return found


def _replace(nodes: dict, node, dimensions, inputs: tuple[str, ...]) -> None:
    name, op = node.name, node.op
    if op == "Rank":
        nodes[name] = constant(name, len(dimensions), tf.int32)
        return
    out = tf.as_dtype(node.attr["out_type"].type) if op in ("Shape", "Size") else None
    shape_name = name if op == "Shape" else f"{name}/shape"
    _pack(nodes, shape_name, dimensions, inputs, out or tf.int32)
    if op == "Size":
        axes = constant(f"{name}/axes", [0], tf.int32)
        nodes[axes.name] = axes
        index = type_attribute(tf.int32)
        product = make_node(
            name, "Prod", [shape_name, axes.name], T=type_attribute(out), Tidx=index
        )
        nodes[name] = product
    elif op in ("OnesLike", "ZerosLike"):
        dtype = tf.as_dtype(node.attr["T"].type)
        value = constant(f"{name}/value", int(op == "OnesLike"), dtype)
        nodes[value.name] = value
        types = {"T": type_attribute(dtype), "index_type": type_attribute(tf.int32)}
        nodes[name] = make_node(name, "Fill", [shape_name, value.name], **types)


def _pack(nodes: dict, name: str, dimensions, inputs, dtype: tf.DType) -> None:
    """Adds nodes that make a shape vector out of numbers and inputs' dimensions."""
    parts = []
    for k, dimension in enumerate(dimensions):
        part = f"{name}/dimension_{k}"
        if isinstance(dimension, int):
            nodes[part] = constant(part, dimension, dtype)
        else:
            _dimension(nodes, part, inputs[dimension[0]], dimension[1], dtype)
        parts.append(part)
    if not parts:
        nodes[name] = constant(name, [], dtype)
        return
    count, axis = attribute(i=len(parts)), attribute(i=0)
    nodes[name] = make_node(
        name, "Pack", parts, T=type_attribute(dtype), N=count, axis=axis
    )


def _dimension(nodes: dict, name: str, source: str, axis: int, dtype) -> None:
    shape = f"{source}/shape_{dtype.name}"
    if shape not in nodes:
        types = {"T": nodes[source].attr["dtype"], "out_type": type_attribute(dtype)}
        nodes[shape] = make_node(shape, "Shape", [source], **types)
    at, none = f"{name}/at", f"{name}/axis"
    nodes[at] = constant(at, axis, tf.int32)
    nodes[none] = constant(none, 0, tf.int32)
    types = {"Tparams": type_attribute(dtype), "Tindices": type_attribute(tf.int32)}
    types |= {"Taxis": type_attribute(tf.int32), "batch_dims": attribute(i=0)}
    nodes[name] = make_node(name, "GatherV2", [shape, at, none], **types)
