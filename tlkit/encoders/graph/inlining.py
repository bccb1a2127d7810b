"""Inlines the calls of a restored function, as TensorFlow does to fold variables."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Private: there is no public way to inline the calls of a function. TensorFlow's own
# `convert_variables_to_constants_v2` (public, used by TFLite) goes through it.
# tests/encoders/test_flattening.py notices when it changes.
from tensorflow.python.framework.convert_to_constants import (
    _run_inline_graph_optimization,
)

from .flat_graph import CannotOpen

CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CONTROL_FLOW = {"While", "StatelessWhile", "If", "StatelessIf", "Case", "For"}
OPAQUE = {"XlaCallModule": "a JAX export", "PyFunc": "Python code"}
OPAQUE |= {"EagerPyFunc": "Python code", "PyFuncStateless": "Python code"}


def inline(function: Any) -> tf.compat.v1.GraphDef:
    """The graph of a concrete function with every call inlined.

    Args:
        function: A concrete function.

    Returns:
        The graph.

    Raises:
        CannotOpen: It holds control flow or ops that are closed boxes themselves.
    """
    _refuse_opaque(function.graph.as_graph_def())
    graph = _run_inline_graph_optimization(
        function, lower_control_flow=False, aggressive_inlining=True
    )
    for node in graph.node:
        if node.op in CONTROL_FLOW:
            raise CannotOpen(f"it has control flow (op {node.op}, `{node.name}`)")
        if node.op in CALLS:
            raise CannotOpen(f"a call could not be inlined (`{node.name}`)")
    return graph


def _refuse_opaque(graph: tf.compat.v1.GraphDef) -> None:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    for node in (node for body in bodies for node in body):
        if node.op in OPAQUE:
            raise CannotOpen(f"it holds {OPAQUE[node.op]} (op {node.op})")
