"""What each section of an encoder costs, and how much comes out at its end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from .graph.flat_graph import FlatGraph, as_graph_def, node_of, tensor_of

if TYPE_CHECKING:
    from .opened_encoder import OpenedEncoder


@dataclasses.dataclass(frozen=True)
class Costs:
    """What the sections of an encoder cost for one example, as in inference.

    Attributes:
        multiplications: For each section how many it makes, in matrix products and
            convolutions; what else there is costs little beside them.
        sizes: For each section how many numbers come out at its end.
    """

    multiplications: tuple[int, ...]
    sizes: tuple[int, ...]


def section_costs(encoder: OpenedEncoder, shapes: Sequence[Sequence[int]]) -> Costs:
    """Counts what the sections of an encoder cost.

    Args:
        encoder: An opened encoder.
        shapes: Shape of each of its flattened inputs, with a batch of one.
    """
    network = encoder.network
    graph = network.graphs[False]
    found = _imported(graph, shapes)
    made = {name: _multiplications(op) for name, op in found.items()}
    return Costs(
        tuple(
            sum(made.get(name, 0) for name in section.inference.nodes)
            for section in network.sections
        ),
        tuple(_size(found, section.inference.cut) for section in network.sections),
    )


def _imported(graph: FlatGraph, shapes) -> dict[str, tf.Operation]:
    """The operations with their shapes inferred."""
    given = dict(
        zip(graph.inputs, zip(shapes, graph.input_specs, strict=True), strict=True)
    )
    with tf.Graph().as_default() as imported:
        bound = {}
        for name, (shape, spec) in given.items():
            bound[name] = tf.compat.v1.placeholder(spec.dtype, shape)
        for name, spec in graph.value_specs.items():
            bound[name] = tf.compat.v1.placeholder(spec.dtype, spec.shape)
        names = set(graph.nodes) - set(bound)
        definition = as_graph_def(graph, names)
        used = {node_of(tensor) for node in definition.node for tensor in node.input}
        tf.graph_util.import_graph_def(
            definition,
            {tensor_of(name): x for name, x in bound.items() if name in used},
            name="costs",
        )
        return {
            op.name.removeprefix("costs/"): op
            for op in imported.get_operations()
            if op.name.startswith("costs/")
        }


def _size(found: Mapping[str, tf.Operation], stop: str | None) -> int:
    if stop is None:
        return 0
    name, place = tensor_of(stop).split(":")
    if name not in found:
        return 0
    return _count(found[name].outputs[int(place)].shape)


def _count(shape: tf.TensorShape) -> int:
    known = shape.rank is not None and all(size is not None for size in shape)
    return math.prod(shape) if known else 0


def _multiplications(op: tf.Operation) -> int:
    """How many an operation makes; 0 where the shapes are not known."""
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
            if tensor.shape.rank != len(term):  # with an ellipsis
                return 0
            sizes |= dict(zip(term, tensor.shape, strict=True))
        return _product(sizes.values())
    return 0


def _product(sizes) -> int:
    sizes = list(sizes)
    return 0 if None in sizes else math.prod(sizes)
