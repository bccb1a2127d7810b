"""Upsampling to the nearest neighbor, by repeating pixels.

XLA has no `ResizeNearestNeighborGrad`, so no block before such an upsampling could be
trained where XLA compiles, which is everything on a TPU. Where the factors are whole
numbers, pixels are repeated instead: the same to the bit, and faster on a CPU.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from .flat_graph import (
    FlatGraph,
    attribute,
    constant,
    data_inputs,
    make_node,
    tensor_of,
    type_attribute,
)
from .tensor_shapes import probed_shapes


def repeat_pixels(graph: FlatGraph) -> FlatGraph:
    """Puts repeated pixels in the place of upsampling to the nearest neighbor.

    Args:
        graph: The flat graph.

    Returns:
        The flat graph. What resizes by factors that are no whole numbers, or depend on
        the sizes of the inputs, stays as it is.
    """
    ops = [n for n in graph.nodes.values() if n.op == "ResizeNearestNeighbor"]
    ops = [node for node in ops if not node.attr["align_corners"].b]
    if not ops:
        return graph
    before = probed_shapes(graph, [tensor_of(data_inputs(node)[0]) for node in ops])
    after = probed_shapes(graph, [tensor_of(node.name) for node in ops])
    nodes = dict(graph.nodes)
    for node, small, large in zip(ops, before, after, strict=True):
        factors = {
            _factors(one, other) for one, other in zip(small, large, strict=True)
        }
        factor = factors.pop()
        if factor and not factors and _exact(node, factor):
            _replace(nodes, node, factor, small[0][3])
    return dataclasses.replace(graph, nodes=nodes)


def _factors(small: tf.TensorShape, large: tf.TensorShape) -> tuple[int, int] | None:
    """By how much height and width grow, if by whole numbers."""
    sizes = [*(small[1:] if small.rank == 4 else [None])]
    sizes += [*(large[1:3] if large.rank == 4 else [None])]
    if None in sizes or 0 in sizes:
        return None
    whole = all(large[axis] % small[axis] == 0 for axis in (1, 2))
    return (large[1] // small[1], large[2] // small[2]) if whole else None


def _exact(node, factors: tuple[int, int]) -> bool:
    """Whether rounding can never lead to a neighbor, as it can for old resizing."""
    powers_of_two = all(factor & (factor - 1) == 0 for factor in factors)
    return node.attr["half_pixel_centers"].b or powers_of_two


def _replace(nodes: dict, node, factors: tuple[int, int], channels: int) -> None:
    """Repeats along channels, then along rows: both are copies of long stretches."""
    images, size = data_inputs(node)
    high, wide = factors

    def name(part: str) -> str:
        return f"{node.name}/{part}"

    def number(part: str, value) -> str:
        nodes[name(part)] = constant(name(part), value, tf.int32)
        return name(part)

    def add(part: str, op: str, inputs: list[str], **attributes) -> str:
        nodes[name(part)] = make_node(name(part), op, inputs, **attributes)
        return name(part)

    int32, of_images = type_attribute(tf.int32), node.attr["T"]
    shaped = {"T": of_images, "Tshape": int32}
    tiled = {"T": of_images, "Tmultiples": int32}
    joined = {"T": int32, "Tidx": int32}
    zero, one, any_ = number("zero", 0), number("one", [1]), number("any", [-1])
    columns = add(
        "columns",
        "GatherV2",
        [size, one, zero],
        Tparams=int32,
        Tindices=int32,
        Taxis=int32,
        batch_dims=attribute(i=0),
    )
    last = number("channels", [channels])
    length = add("length", "Mul", [columns, last], T=int32)
    rows = add("rows", "ConcatV2", [any_, length, zero], N=attribute(i=2), **joined)
    shape = add(
        "shape", "ConcatV2", [any_, size, last, zero], N=attribute(i=3), **joined
    )
    x = add("wide", "Tile", [images, number("by_width", [1, 1, 1, wide])], **tiled)
    x = add("as_rows", "Reshape", [x, rows], **shaped)
    x = add("high", "Tile", [x, number("by_height", [1, high])], **tiled)
    nodes[node.name] = make_node(node.name, "Reshape", [x, shape], **shaped)
