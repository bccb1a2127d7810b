"""Padding goes into the convolution behind it, which then reads the pixels itself.

Layer norms that keep their epsilon.

TensorFlow's optimizer (seen in 2.21, on CPUs with oneDNN) makes one op of a layer norm
whose scale and offset are constants, and forgets the epsilon: that op always adds
0.001 to the variance. A frozen BERT, with its 1e-12, comes out wrong by eight percent.
So the layer norm is written in a way that it doesn't know.
"""

from __future__ import annotations

import numpy as np

from ..graph.flat_graph import attribute, data_inputs, make_node, node_of
from .constants import Constants


def fold_pads(constants: Constants) -> None:
    """Folds paddings with zeros into convolutions, in place.

    Args:
        constants: The graph.
    """
    for node in constants.needed():
        if node.op == "Conv2D" and node.attr["data_format"].s != b"NCHW":
            _fold_pad(constants, node)


def _fold_pad(constants: Constants, node) -> None:
    before = constants.nodes.get(node_of(node.input[0]))
    if before is None or before.op not in ("Pad", "PadV2"):
        return
    if node.attr["padding"].s != b"VALID":
        return
    data, *values = data_inputs(before)
    widths, *filled = [constants.array(tensor) for tensor in values]
    zeros = all(value is not None and not np.any(value) for value in filled)
    if widths is None or not zeros or widths.shape != (4, 2) or widths[[0, 3]].any():
        return
    changed = constants.change(node.name)
    changed.input[0] = data
    changed.attr["padding"].CopyFrom(attribute(s=b"EXPLICIT"))
    changed.attr["explicit_paddings"].list.i.extend(int(w) for w in widths.ravel())


# === Layer norms ===


ASSUMED = 0.001


def keep_epsilons(constants: Constants) -> None:
    """Makes sure that no layer norm gets another epsilon, in place.

    Args:
        constants: The graph.
    """
    for node in constants.needed():
        if node.op == "Rsqrt" and _is_of_variance(constants, node):
            root = f"{node.name}/root"
            kind = node.attr["T"]
            constants.nodes[root] = make_node(root, "Sqrt", [node.input[0]], T=kind)
            # Nothing makes this an `Rsqrt` again, as a power or a quotient would be.
            inverse = make_node(node.name, "Reciprocal", [root], T=kind)
            constants.nodes[node.name] = inverse


def _is_of_variance(constants: Constants, node) -> bool:
    total = constants.nodes.get(node_of(node.input[0]))
    if total is None or total.op not in ("Add", "AddV2"):
        return False
    epsilons = [constants.array(tensor) for tensor in data_inputs(total)]
    return not any(e is not None and (e == ASSUMED).all() for e in epsilons)
