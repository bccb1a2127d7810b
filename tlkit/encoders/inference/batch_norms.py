"""Folds batch norms and other scalings of channels into the kernel before them.

In inference a batch norm multiplies each channel by a number and adds another. A
convolution or a matrix product can do that itself, with a scaled kernel and a bias. The
same holds for any chain of batch norms, products and sums with constants per channel.

Tested in tests/encoders/inference/test_forward_pass.py.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import NodeDef, add_node, copy_node, data_inputs, tensor_of
from .folded_graph import FoldedGraph
from .matrix_products import Splits

# Ops with a kernel, and the number of axes of their outputs.
_OUTPUT_RANKS = {"Conv2D": 4, "DepthwiseConv2dNative": 4, "MatMul": 2}
_BATCH_NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
_DTYPES = {tf.float32, tf.float64}


@dataclasses.dataclass(frozen=True)
class _Affine:
    """Maps each channel to `scale * x + offset`; both are float64 `[channels]`."""

    scale: np.ndarray | float
    offset: np.ndarray | float


def fold_batch_norms(graph: FoldedGraph, splits: Splits) -> None:
    """Folds scalings of channels into the kernels before them, in place.

    A scaling stays if another node, or an output, needs the unscaled tensor.

    Args:
        graph: The graph.
        splits: How the `Reshape` nodes after matrix products split the last axis. A
            scaling after such a node is moved before it.
    """
    readers = graph.readers()
    for node in graph.needed():
        if node.op in _OUTPUT_RANKS and _can_scale(node):
            kernel = graph.constant_value(node.input[1])
            if kernel is not None:
                _fold_into(graph, node, kernel, readers, splits)


def _can_scale(node: NodeDef) -> bool:
    """Tells whether a node has its channels last and the dtype float32 or float64."""
    # Reading an attribute that a node lacks would create it.
    layout = node.attr["data_format"].s if "data_format" in node.attr else b"NHWC"
    return layout == b"NHWC" and tf.as_dtype(node.attr["T"].type) in _DTYPES


def _fold_into(
    graph: FoldedGraph,
    node: NodeDef,
    kernel: np.ndarray,
    readers: Mapping[str, list[str]],
    splits: Splits,
) -> None:
    """Folds the scalings that follow a node into its kernel and a bias."""
    shape = _factors_shape(node, kernel)
    channels = math.prod(shape)
    rank, dimensions = _OUTPUT_RANKS[node.op], (channels,)
    last, split = node.name, None
    scale, offset = np.ones(channels), np.zeros(channels)
    ops: list[str] = []
    while (name := _only_reader(graph, last, readers)) is not None:
        if name in splits and split is None:
            rank, dimensions = splits[name]
            last = split = name
            continue
        step = _affine(graph, name, last, rank, dimensions)
        if step is None:
            break
        scale, offset = scale * step.scale, offset * step.scale + step.offset
        ops.append(graph.nodes[name].op)
        last = name
    if not ops or (split is None and set(ops) <= {"BiasAdd", "Identity"}):
        return  # only a bias follows, which is already the fastest form
    scaled = (kernel * scale.reshape(shape)).astype(kernel.dtype)
    product = graph.own_node(node.name)
    product.input[1] = tensor_of(
        graph.add_constant(f"{node.name}/folded_kernel", scaled)
    )
    bias = graph.add_constant(f"{last}/folded_bias", offset.astype(kernel.dtype))
    name = last if split is None else f"{last}/folded_sum"
    types = {"T": node.attr["T"], "data_format": b"NHWC"}
    add_node(graph.nodes, name, "BiasAdd", [node.name, bias], **types)
    if split is not None:
        graph.nodes[last] = copy_node(graph.nodes[split])
        graph.nodes[last].name = last
        graph.nodes[last].input[0] = tensor_of(name)


def _factors_shape(node: NodeDef, kernel: np.ndarray) -> tuple[int, ...]:
    """Returns the shape in which one factor per output channel multiplies a kernel."""
    if node.op == "DepthwiseConv2dNative":
        return kernel.shape[-2:]
    if node.op == "MatMul" and node.attr["transpose_b"].b:
        return (kernel.shape[0], 1)
    return kernel.shape[-1:]


def _only_reader(
    graph: FoldedGraph, name: str, readers: Mapping[str, list[str]]
) -> str | None:
    """Returns the node that reads a node's output, if nothing else needs the output."""
    tensor = tensor_of(name)
    # Outputs after the first are batch statistics, which only training reads.
    others = [f"{name}:{k}" for k in range(1, 6)]
    if any(t in readers or t in graph.outputs for t in others):
        return None
    names = readers.get(tensor, [])
    return names[0] if len(names) == 1 and tensor not in graph.outputs else None


def _affine(
    graph: FoldedGraph, name: str, source: str, rank: int, dimensions: tuple[int, ...]
) -> _Affine | None:
    """Expresses a node as an affine map of channels; `None` if it is something else.

    Args:
        graph: The graph.
        name: Name of the node.
        source: Name of the node that computes its input.
        rank: Number of axes of the input.
        dimensions: Sizes of the last axes of the input, which hold the channels.
    """
    node = graph.nodes[name]
    inputs = data_inputs(node)
    if node.op == "Identity":
        return _Affine(1.0, 0.0)
    if "T" not in node.attr or not _can_scale(node):
        return None
    if node.op in _BATCH_NORMS:
        return _batch_norm(graph, node, source)
    if len(inputs) != 2:
        return None
    source_is_first = tensor_of(inputs[0]) == tensor_of(source)
    value = graph.constant_value(inputs[source_is_first])  # the input besides `source`
    value = _by_channel(value, rank, dimensions)
    if value is None:
        return None
    match node.op:
        case "BiasAdd" | "Add" | "AddV2":
            return _Affine(1.0, value)
        case "Mul":
            return _Affine(value, 0.0)
        case "Sub":
            return _Affine(1.0, -value) if source_is_first else _Affine(-1.0, value)
        case "RealDiv" if source_is_first and np.all(value):
            return _Affine(1.0 / value, 0.0)
    return None


def _by_channel(
    value: np.ndarray | None, rank: int, dimensions: tuple[int, ...]
) -> np.ndarray | None:
    """Returns a constant as float64 `[channels]`; `None` if it has no such form."""
    if value is None or value.ndim > rank:
        return None
    other_axes = max(value.ndim - len(dimensions), 0)
    if any(size != 1 for size in value.shape[:other_axes]):
        return None
    value = value.reshape(value.shape[other_axes:]).astype("float64")
    sizes = zip(value.shape[::-1], dimensions[::-1], strict=False)
    if any(size not in (1, dimension) for size, dimension in sizes):
        return None
    return np.broadcast_to(value, dimensions).reshape(-1)


def _batch_norm(graph: FoldedGraph, node, source: str) -> _Affine | None:
    data, *parameters = data_inputs(node)
    values = [graph.constant_value(tensor) for tensor in parameters]
    trains = "is_training" not in node.attr or node.attr["is_training"].b
    unknown = any(value is None for value in values)
    if trains or unknown or tensor_of(data) != tensor_of(source):
        return None
    gamma, beta, mean, variance = (value.astype("float64") for value in values)
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    scale = gamma / np.sqrt(variance + epsilon)
    return _Affine(scale, beta - mean * scale)
