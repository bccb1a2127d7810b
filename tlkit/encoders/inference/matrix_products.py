"""Rewrites products with a constant kernel as plain matrix products.

The layers of a transformer multiply the last axes of a tensor by a kernel, many of them
with an `Einsum`. TensorFlow runs a product of two matrices and its bias as one op, and
rearranges the constant kernel in memory only once. For an `Einsum` it does neither.

Tested in tests/encoders/inference/test_forward_pass.py.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import add_constant, add_node, data_inputs, node_of
from .folded_graph import FoldedGraph

# For each `Reshape` that splits the last axis of its input, by name: the number of axes
# of its output, and the sizes of the axes into which the last axis is split.
Splits = dict[str, tuple[int, tuple[int, ...]]]


def fold_products(graph: FoldedGraph, shapes: Mapping[str, tf.TensorShape]) -> Splits:
    """Rewrites products with constant kernels as matrix products, in place.

    Args:
        graph: The graph.
        shapes: The static shape of the output of each `Reshape`, by its name.

    Returns:
        How the `Reshape` nodes after matrix products split the last axis.
    """
    splits: Splits = {}
    for node in graph.needed():
        if node.op == "Einsum" and len(node.input) == 2:
            splits |= _fold_einsum(graph, node)
    for node in graph.needed():
        if node.op == "Reshape" and node.name in shapes:
            product = graph.nodes.get(node_of(node.input[0]))
            shape = shapes[node.name]
            if product is not None and product.op == "MatMul" and shape.rank:
                width = _width(graph, product)
                if width and shape[-1] == width:
                    splits[node.name] = (shape.rank, (width,))
    return splits


def _width(graph: FoldedGraph, product) -> int | None:
    """Returns the size of the last axis of a matrix product with a constant kernel."""
    kernel = graph.constant_value(product.input[1])
    if kernel is None:
        return None
    return kernel.shape[0 if product.attr["transpose_b"].b else 1]


def _fold_einsum(graph: FoldedGraph, node) -> Splits:
    """Replaces an `Einsum` by a `Reshape` to rows, a `MatMul` and a `Reshape` back."""
    terms, result_axes = node.attr["equation"].s.decode().split("->")
    operands = list(zip(terms.split(","), data_inputs(node), strict=True))
    if graph.constant_value(operands[0][1]) is not None:
        operands.reverse()  # factors can be swapped, since axes have names
    (data_axes, data), (kernel_axes, kernel) = operands
    array = graph.constant_value(kernel)
    batch = _batch_axes(data_axes, kernel_axes, result_axes)
    if array is None or not batch:
        return {}
    summed, new = data_axes[len(batch) :], result_axes[len(batch) :]
    sizes = dict(zip(kernel_axes, array.shape, strict=True))
    width = math.prod(sizes[axis] for axis in summed)
    dimensions = tuple(sizes[axis] for axis in new)
    array = array.transpose([kernel_axes.index(axis) for axis in summed + new])
    name, dtype = node.name, node.attr["T"]
    rows = _add_reshape(graph, f"{name}/rows", data, [-1, width], dtype)
    matrix = graph.add_constant(f"{name}/kernel", array.reshape(width, -1))
    types = {"T": dtype, "transpose_a": False, "transpose_b": False}
    product = f"{name}/product"
    add_node(graph.nodes, product, "MatMul", [rows, matrix], **types)
    shape = [-1, *dimensions]
    if len(batch) > 1:
        shape = _add_shape(graph, name, data, len(batch), dimensions, dtype)
    _add_reshape(graph, name, product, shape, dtype)
    return {name: (len(result_axes), dimensions)}


def _batch_axes(data_axes: str, kernel_axes: str, result_axes: str) -> str | None:
    """Returns the batch axes of an `Einsum`: those of the data that the kernel lacks.

    Returns `None` unless they come first in data and result, and all other axes of the
    data are summed over, as in a matrix product.
    """
    batch = "".join(axis for axis in data_axes if axis not in kernel_axes)
    summed, new = data_axes[len(batch) :], result_axes[len(batch) :]
    all_named = (data_axes + kernel_axes + result_axes).isalpha()
    unique = len(set(data_axes)) == len(data_axes)
    unique = unique and len(set(kernel_axes)) == len(kernel_axes) == len(summed + new)
    batch_first = data_axes.startswith(batch) and result_axes.startswith(batch)
    complete = set(summed + new) == set(kernel_axes) and not set(summed) & set(new)
    return batch if all_named and unique and batch_first and complete else None


def _add_reshape(graph: FoldedGraph, name: str, data: str, shape, dtype) -> str:
    """Adds a `Reshape`; the shape is a list of sizes or the name of a node."""
    if not isinstance(shape, str):
        shape = add_constant(graph.nodes, f"{name}/to", np.array(shape), tf.int32)
    types = {"T": dtype, "Tshape": tf.int32}
    return add_node(graph.nodes, name, "Reshape", [data, shape], **types)


def _add_shape(
    graph: FoldedGraph, name: str, data: str, count: int, dimensions, dtype
) -> str:
    """Adds nodes that append `dimensions` to the first `count` sizes of a tensor."""

    def number(part: str, value) -> str:
        return add_constant(graph.nodes, f"{name}/{part}", np.array(value), tf.int32)

    def add(part: str, op: str, inputs: list[str], **attributes) -> str:
        return add_node(graph.nodes, f"{name}/{part}", op, inputs, **attributes)

    shape = add("whole", "Shape", [data], T=dtype, out_type=tf.int32)
    begin, size = number("begin", [0]), number("size", [count])
    first = add("first", "Slice", [shape, begin, size], T=tf.int32, Index=tf.int32)
    last, axis = number("last", dimensions), number("axis", 0)
    types = {"T": tf.int32, "Tidx": tf.int32}
    return add("joined", "ConcatV2", [first, last, axis], N=2, **types)
