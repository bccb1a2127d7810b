"""Two small rewrites of a graph with constant weights.

* Zero padding moves into the convolution after it, so no padded copy is written.
* Layer norms keep their epsilon. TensorFlow's optimizer (seen in 2.21, on CPUs with
  oneDNN) fuses a layer norm with constant scale and offset into one op and drops its
  epsilon: that op always adds 0.001 to the variance. The output of a frozen BERT, whose
  epsilon is 1e-12, is then wrong by eight percent. So the layer norm is written in a
  form that the optimizer does not recognize.

Tested in tests/encoders/inference/test_forward_pass.py.
"""

import numpy as np

from ..graph.flat_graph import add_node, data_inputs, node_of
from .folded_graph import FoldedGraph

_FUSED_EPSILON = 0.001


def fold_pads(graph: FoldedGraph) -> None:
    """Folds zero padding into convolutions, in place."""
    for node in graph.needed():
        if node.op == "Conv2D" and node.attr["data_format"].s != b"NCHW":
            _fold_pad(graph, node)


def _fold_pad(graph: FoldedGraph, node) -> None:
    pad = graph.nodes.get(node_of(node.input[0]))
    if pad is None or pad.op not in ("Pad", "PadV2"):
        return
    if node.attr["padding"].s != b"VALID":
        return
    data, *constants = data_inputs(pad)
    widths, *fill_values = [graph.constant_value(tensor) for tensor in constants]
    zeros = all(value is not None and not np.any(value) for value in fill_values)
    if widths is None or not zeros or widths.shape != (4, 2) or widths[[0, 3]].any():
        return
    convolution = graph.own_node(node.name)
    convolution.input[0] = data
    convolution.attr["padding"].s = b"EXPLICIT"
    paddings = convolution.attr["explicit_paddings"].list.i
    paddings.extend(int(width) for width in widths.ravel())


def keep_epsilons(graph: FoldedGraph) -> None:
    """Prevents TensorFlow from fusing layer norms whose epsilon is not 0.001."""
    for node in graph.needed():
        if node.op == "Rsqrt" and _has_other_epsilon(graph, node):
            root, types = f"{node.name}/root", {"T": node.attr["T"]}
            # The optimizer turns a power or a quotient back into an `Rsqrt`, but not
            # a `Reciprocal`.
            add_node(graph.nodes, root, "Sqrt", [node.input[0]], **types)
            add_node(graph.nodes, node.name, "Reciprocal", [root], **types)


def _has_other_epsilon(graph: FoldedGraph, node) -> bool:
    total = graph.nodes.get(node_of(node.input[0]))
    if total is None or total.op not in ("Add", "AddV2"):
        return False
    epsilons = [graph.constant_value(tensor) for tensor in data_inputs(total)]
    return not any(e is not None and (e == _FUSED_EPSILON).all() for e in epsilons)
