"""Padding goes into the convolution behind it, which then reads the pixels itself."""

from __future__ import annotations

import numpy as np

from ..graph.flat_graph import attribute, data_inputs, node_of
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
