"""Products with a constant kernel as plain matrix products.

A transformer's layers multiply the last axes of a tensor by a kernel. As a product of
two matrices this is one op together with its bias, and the kernel is laid out once; as
an `Einsum` it is neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import (
    attribute,
    constant,
    data_inputs,
    make_node,
    node_of,
    type_attribute,
)
from .constants import Constants

INT32 = type_attribute(tf.int32)

# The number of axes of what a `Reshape` gives, and the sizes of the last of these, into
# which the last axis of what it reads is split.
Splits = dict[str, tuple[int, tuple[int, ...]]]


def fold_products(constants: Constants, shapes: Mapping[str, tf.TensorShape]) -> Splits:
    """Rewrites products with constant kernels as products of matrices, in place.

    Args:
        constants: The graph.
        shapes: The static shape of what comes out of each `Reshape`, by its name.

    Returns:
        How the `Reshape` nodes behind products of matrices split the last axis.
    """
    splits: Splits = {}
    for node in constants.needed():
        if node.op == "Einsum" and len(node.input) == 2:
            splits |= _fold_einsum(constants, node)
    for node in constants.needed():
        if node.op == "Reshape" and node.name in shapes:
            product = constants.nodes.get(node_of(node.input[0]))
            shape = shapes[node.name]
            if product is not None and product.op == "MatMul" and shape.rank:
                width = _width(constants, product)
                if width and shape[-1] == width:
                    splits[node.name] = (shape.rank, (width,))
    return splits


def _width(constants: Constants, product) -> int | None:
    kernel = constants.array(product.input[1])
    if kernel is None:
        return None
    return kernel.shape[0 if product.attr["transpose_b"].b else 1]


def _fold_einsum(constants: Constants, node) -> Splits:
    """Makes an `Einsum` a `Reshape` to rows, a `MatMul` and a `Reshape` back."""
    terms, result = node.attr["equation"].s.decode().split("->")
    operands = list(zip(terms.split(","), data_inputs(node), strict=True))
    if constants.array(operands[0][1]) is not None:
        operands.reverse()  # the order of factors is free, since axes have names
    (axes, data), (of_kernel, kernel) = operands
    array = constants.array(kernel)
    batch = _batch_axes(axes, of_kernel, result)
    if array is None or not batch:
        return {}
    inner, made = axes[len(batch) :], result[len(batch) :]
    sizes = dict(zip(of_kernel, array.shape, strict=True))
    width, dimensions = (
        math.prod(sizes[i] for i in inner),
        tuple(sizes[i] for i in made),
    )
    array = array.transpose([of_kernel.index(i) for i in inner + made])
    name, kind = node.name, node.attr["T"]
    rows = _reshape(constants, f"{name}/rows", data, [-1, width], kind)
    kernel = constants.add(f"{name}/kernel", array.reshape(width, -1))
    no = attribute(b=False)
    product = make_node(
        f"{name}/product",
        "MatMul",
        [rows, kernel],
        T=kind,
        transpose_a=no,
        transpose_b=no,
    )
    constants.nodes[product.name] = product
    shape = [-1, *dimensions]
    if len(batch) > 1:
        shape = _shape(constants, name, data, len(batch), dimensions, kind)
    _reshape(constants, name, product.name, shape, kind)
    return {name: (len(result), dimensions)}


def _batch_axes(axes: str, of_kernel: str, result: str) -> str | None:
    """The first axes of the data, if the others are those that are summed over."""
    batch = "".join(i for i in axes if i not in of_kernel)
    inner, made = axes[len(batch) :], result[len(batch) :]
    plain = (axes + of_kernel + result).isalpha() and len(set(axes)) == len(axes)
    named_once = len(set(of_kernel)) == len(of_kernel) == len(inner + made)
    follows = axes.startswith(batch) and result.startswith(batch)
    whole = set(inner + made) == set(of_kernel) and not set(inner) & set(made)
    return batch if plain and named_once and follows and whole else None


def _reshape(constants: Constants, name: str, data: str, shape, kind) -> str:
    if not isinstance(shape, str):
        node = constant(f"{name}/to", np.array(shape), tf.int32)
        constants.nodes[node.name] = node
        shape = node.name
    node = make_node(name, "Reshape", [data, shape], T=kind, Tshape=INT32)
    constants.nodes[name] = node
    return name


def _shape(constants: Constants, name: str, data, count: int, dimensions, kind) -> str:
    """The first `count` sizes of a tensor, and then others."""
    numbers = {"begin": [0], "size": [count], "last": dimensions, "axis": 0}
    for part, value in numbers.items():
        node = constant(f"{name}/{part}", np.array(value), tf.int32)
        constants.nodes[node.name] = node
    whole, first, joined = (f"{name}/{part}" for part in ("whole", "first", "joined"))
    begin, size, last, axis = (f"{name}/{part}" for part in numbers)
    ints = {"T": INT32, "Tidx": INT32}
    made = [
        make_node(whole, "Shape", [data], T=kind, out_type=INT32),
        make_node(first, "Slice", [whole, begin, size], T=INT32, Index=INT32),
        make_node(joined, "ConcatV2", [first, last, axis], N=attribute(i=2), **ints),
    ]
    constants.nodes |= {node.name: node for node in made}
    return joined
