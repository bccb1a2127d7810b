"""Estimates the multiplications and the output size of each section of an encoder.

Tested in tests/training/plans/test_cache_plan.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from .graph.flat_graph import tensor_of
from .graph.tensor_shapes import operations_with_shapes

if TYPE_CHECKING:
    from .opened_encoder import OpenedEncoder


@dataclasses.dataclass(frozen=True)
class Costs:
    """The multiplications and output sizes of an encoder's sections in inference.

    Attributes:
        multiplications: For each section, the number of multiplications for one
            example. Only matrix products and convolutions count: other ops cost little.
        sizes: For each section, the number of values in its output for one example; 0
            if unknown and for the last section.
    """

    multiplications: tuple[int, ...]
    sizes: tuple[int, ...]


def section_costs(encoder: OpenedEncoder, shapes: Sequence[Sequence[int]]) -> Costs:
    """Counts the multiplications and output values of each section.

    Args:
        encoder: An opened encoder.
        shapes: Shapes of the encoder's flattened inputs, with batch size 1.
    """
    network = encoder.network
    ops = operations_with_shapes(network.graphs[False], shapes)
    counts = {name: _multiplications(op) for name, op in ops.items()}
    return Costs(
        tuple(
            sum(counts.get(name, 0) for name in section.inference.nodes)
            for section in network.sections
        ),
        tuple(_size(ops, section.inference.cut) for section in network.sections),
    )


def _size(ops: Mapping[str, tf.Operation], cut: str | None) -> int:
    if cut is None:
        return 0
    name, output = tensor_of(cut).split(":")
    return _count(ops[name].outputs[int(output)].shape) if name in ops else 0


def _count(shape: tf.TensorShape) -> int:
    known = shape.rank is not None and all(size is not None for size in shape)
    return math.prod(shape) if known else 0


def _multiplications(op: tf.Operation) -> int:
    """Counts the multiplications of an op; 0 for other types and unknown shapes."""
    if op.type in ("Conv2D", "Conv3D"):
        *window, channels, _ = op.inputs[1].shape
        return _count(op.outputs[0].shape) * _product([*window, channels])
    if op.type == "DepthwiseConv2dNative":
        return _count(op.outputs[0].shape) * _product(op.inputs[1].shape[:2])
    if op.type == "MatMul":
        inner = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
        return _count(op.outputs[0].shape) * (inner or 0)
    if op.type.startswith("BatchMatMul"):
        inner = op.inputs[0].shape[-2 if op.get_attr("adj_x") else -1]
        return _count(op.outputs[0].shape) * (inner or 0)
    if op.type == "Einsum":
        terms = op.get_attr("equation").decode().split("->")[0].split(",")
        sizes = {}
        for term, tensor in zip(terms, op.inputs, strict=True):
            if tensor.shape.rank != len(term):  # the equation has an ellipsis
                return 0
            sizes |= dict(zip(term, tensor.shape, strict=True))
        return _product(sizes.values())
    return 0


def _product(sizes) -> int:
    sizes = list(sizes)
    return 0 if None in sizes else math.prod(sizes)
