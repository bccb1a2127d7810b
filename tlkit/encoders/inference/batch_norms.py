"""Batch norms and other scalings of channels go into the kernel before them.

In inference a batch norm multiplies each channel by one number and adds another. A
convolution or a matrix product can do that by itself: with its kernel multiplied, and
a bias. The same holds for whatever else has this form, be it written as a batch norm,
as products and sums with constants, or as several of these in a row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import (
    attribute,
    data_inputs,
    make_node,
    tensor_of,
    without_control,
)
from .constants import Constants
from .matrix_products import Splits

# What has a kernel, and how many axes there are in what comes out of it.
RANKS = {"Conv2D": 4, "DepthwiseConv2dNative": 4, "MatMul": 2}
NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
TYPES = {tf.float32, tf.float64}


@dataclasses.dataclass(frozen=True)
class Affine:
    """What is done to each channel: `scale * x + offset`, float64 `[channels]`."""

    scale: np.ndarray | float
    offset: np.ndarray | float


def fold_norms(constants: Constants, splits: Splits) -> None:
    """Folds scalings of channels into the kernels before them, in place.

    A scaling stays where what it scales is used or wanted elsewhere, too.

    Args:
        constants: The graph.
        splits: How the `Reshape` nodes behind products of matrices split their last
            axis; what is done behind them is done before them, then.
    """
    readers = constants.readers()
    for node in constants.needed():
        if node.op in RANKS and _is_plain(node):
            kernel = constants.array(node.input[1])
            if kernel is not None:
                _fold_into(constants, node, kernel, readers, splits)


def _is_plain(node: tf.compat.v1.NodeDef) -> bool:
    """Whether channels come last, in a precision that bears another rounding."""
    # Asking a node for an attribute that it lacks would give it one.
    layout = node.attr["data_format"].s if "data_format" in node.attr else b"NHWC"
    return layout == b"NHWC" and tf.as_dtype(node.attr["T"].type) in TYPES


def _fold_into(
    constants: Constants,
    node: tf.compat.v1.NodeDef,
    kernel: np.ndarray,
    readers: Mapping[str, list[str]],
    splits: Splits,
) -> None:
    shape = _factors_shape(node, kernel)
    channels = math.prod(shape)
    rank, dimensions = RANKS[node.op], (channels,)
    last, split, scale, offset = node.name, None, np.ones(channels), np.zeros(channels)
    ops: list[str] = []
    while (name := _only_reader(constants, last, readers)) is not None:
        if name in splits and split is None:
            rank, dimensions = splits[name]
            last = split = name
            continue
        step = _affine(constants, name, last, rank, dimensions)
        if step is None:
            break
        scale, offset = scale * step.scale, offset * step.scale + step.offset
        ops.append(constants.nodes[name].op)
        last = name
    if not ops or (split is None and set(ops) <= {"BiasAdd", "Identity"}):
        return  # as it should be
    changed = constants.change(node.name)
    scaled = (kernel * scale.reshape(shape)).astype(kernel.dtype)
    changed.input[1] = tensor_of(constants.add(f"{node.name}/folded_kernel", scaled))
    bias = constants.add(f"{last}/folded_bias", offset.astype(kernel.dtype))
    name = last if split is None else f"{last}/folded_sum"
    layout = attribute(s=b"NHWC")
    total = make_node(
        name, "BiasAdd", [node.name, bias], T=node.attr["T"], data_format=layout
    )
    constants.nodes[name] = total
    if split is not None:
        constants.nodes[last] = without_control(constants.nodes[split])
        constants.nodes[last].name = last
        constants.nodes[last].input[0] = tensor_of(name)


def _factors_shape(node: tf.compat.v1.NodeDef, kernel: np.ndarray) -> tuple[int, ...]:
    """Shape of one factor for each output channel, to be multiplied by a kernel."""
    if node.op == "DepthwiseConv2dNative":
        return kernel.shape[-2:]
    if node.op == "MatMul" and node.attr["transpose_b"].b:
        return (kernel.shape[0], 1)
    return kernel.shape[-1:]


def _only_reader(
    constants: Constants, name: str, readers: Mapping[str, list[str]]
) -> str | None:
    """The node that alone reads a node, and that only once."""
    tensor = tensor_of(name)
    # The other outputs of a batch norm are there for training.
    others = [f"{name}:{k}" for k in range(1, 6)]
    if any(t in readers or t in constants.wanted for t in others):
        return None
    found = readers.get(tensor, [])
    return found[0] if len(found) == 1 and tensor not in constants.wanted else None


def _affine(
    constants: Constants, name: str, source: str, rank: int, dimensions: tuple[int, ...]
) -> Affine | None:
    """What a node does to the channels of the node that it reads."""
    node = constants.nodes[name]
    inputs = data_inputs(node)
    if node.op == "Identity":
        return Affine(1.0, 0.0)
    if "T" not in node.attr or not _is_plain(node):
        return None
    if node.op in NORMS:
        return _norm(constants, node, source)
    if len(inputs) != 2:
        return None
    first = tensor_of(inputs[0]) == tensor_of(source)
    value = _by_channel(constants.array(inputs[first]), rank, dimensions)
    if value is None:
        return None
    match node.op:
        case "BiasAdd" | "Add" | "AddV2":
            return Affine(1.0, value)
        case "Mul":
            return Affine(value, 0.0)
        case "Sub":
            return Affine(1.0, -value) if first else Affine(-1.0, value)
        case "RealDiv" if first and np.all(value):
            return Affine(1.0 / value, 0.0)
    return None


def _by_channel(
    value: np.ndarray | None, rank: int, dimensions: tuple[int, ...]
) -> np.ndarray | None:
    """A constant as float64 `[channels]`, if it is the same for all else."""
    if value is None or value.ndim > rank:
        return None
    before = max(value.ndim - len(dimensions), 0)
    if any(size != 1 for size in value.shape[:before]):
        return None
    value = value.reshape(value.shape[before:]).astype("float64")
    sizes = zip(value.shape[::-1], dimensions[::-1], strict=False)
    if any(size not in (1, whole) for size, whole in sizes):
        return None
    return np.broadcast_to(value, dimensions).reshape(-1)


def _norm(constants: Constants, node, source: str) -> Affine | None:
    data, *rest = data_inputs(node)
    values = [constants.array(tensor) for tensor in rest]
    trains = "is_training" not in node.attr or node.attr["is_training"].b
    missing = any(value is None for value in values)
    if trains or missing or tensor_of(data) != tensor_of(source):
        return None
    gamma, beta, mean, variance = (value.astype("float64") for value in values)
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    scale = gamma / np.sqrt(variance + epsilon)
    return Affine(scale, beta - mean * scale)
