"""Nearest-neighbor upsampling by repeating pixels.

XLA has no `ResizeNearestNeighborGrad`. So no block before a `ResizeNearestNeighbor`
could be trained where XLA compiles, which includes everything on a TPU. If the factors
of the resize are integers, repeating pixels gives the same result bit for bit, and is
faster on a CPU.

Tested in tests/encoders/test_xla_report.py.
"""

import dataclasses

import tensorflow as tf

from .flat_graph import FlatGraph, add_constant, add_node, data_inputs, tensor_of
from .tensor_shapes import probed_shapes


def repeat_pixels(graph: FlatGraph) -> FlatGraph:
    """Replaces nearest-neighbor upsampling by repeated pixels.

    A resize stays if its factors are not integers or depend on the sizes of the inputs.
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
        if factor and not factors and _is_exact(node, factor):
            _replace(nodes, node, factor, small[0][3])
    return dataclasses.replace(graph, nodes=nodes)


def _factors(small: tf.TensorShape, large: tf.TensorShape) -> tuple[int, int] | None:
    """Returns the factors of height and width; `None` if they are not integers."""
    sizes = [*(small[1:] if small.rank == 4 else [None])]
    sizes += [*(large[1:3] if large.rank == 4 else [None])]
    if None in sizes or 0 in sizes:
        return None
    integral = all(large[axis] % small[axis] == 0 for axis in (1, 2))
    return (large[1] // small[1], large[2] // small[2]) if integral else None


def _is_exact(node, factors: tuple[int, int]) -> bool:
    """Tells whether repeating pixels equals a resize, whose indices may be rounded."""
    powers_of_two = all(factor & (factor - 1) == 0 for factor in factors)
    return node.attr["half_pixel_centers"].b or powers_of_two


def _replace(nodes: dict, node, factors: tuple[int, int], channels: int) -> None:
    """Replaces a resize: one `Tile` repeats pixels along the width, one repeats rows.

    Both copy contiguous memory, which is fast.
    """
    images, size = data_inputs(node)
    height_factor, width_factor = factors

    def number(part: str, value) -> str:
        return add_constant(nodes, f"{node.name}/{part}", value, tf.int32)

    def add(part: str, op: str, inputs: list[str], **attributes) -> str:
        return add_node(nodes, f"{node.name}/{part}", op, inputs, **attributes)

    dtype = node.attr["T"]
    shaped = {"T": dtype, "Tshape": tf.int32}
    tiled = {"T": dtype, "Tmultiples": tf.int32}
    joined = {"T": tf.int32, "Tidx": tf.int32}
    gathered = {"Tparams": tf.int32, "Tindices": tf.int32, "Taxis": tf.int32}
    zero, one, unknown = number("zero", 0), number("one", [1]), number("any", [-1])
    columns = add("columns", "GatherV2", [size, one, zero], batch_dims=0, **gathered)
    last = number("channels", [channels])
    length = add("length", "Mul", [columns, last], T=tf.int32)
    rows = add("rows", "ConcatV2", [unknown, length, zero], N=2, **joined)
    shape = add("shape", "ConcatV2", [unknown, size, last, zero], N=3, **joined)
    by_width = number("by_width", [1, 1, 1, width_factor])
    by_height = number("by_height", [1, height_factor])
    x = add("wide", "Tile", [images, by_width], **tiled)
    x = add("as_rows", "Reshape", [x, rows], **shaped)
    x = add("high", "Tile", [x, by_height], **tiled)
    add_node(nodes, node.name, "Reshape", [x, shape], **shaped)
