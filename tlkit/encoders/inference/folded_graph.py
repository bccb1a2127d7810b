"""A graph with constant weights, which the rewrites of this package change.

Tested in tests/encoders/inference/test_forward_pass.py.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import (
    NodeDef,
    Nodes,
    copy_node,
    data_inputs,
    needed_nodes,
    node_of,
    tensor_of,
)


@dataclasses.dataclass
class FoldedGraph:
    """A pure graph whose variables are constants; the folding functions change it.

    Args:
        nodes: The nodes by name; some may no longer be needed.
        arrays: Values of constant tensors that no node computes, by full name.
        outputs: Full names of the tensors that the graph must still compute.
    """

    nodes: Nodes
    arrays: dict[str, np.ndarray]
    outputs: tuple[str, ...]

    def constant_value(self, tensor: str) -> np.ndarray | None:
        """Returns the value of a tensor; `None` if it is not a constant."""
        node = self.nodes.get(node_of(tensor))
        if node is not None and node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        return self.arrays.get(tensor_of(tensor))

    def add_constant(self, name: str, array: np.ndarray) -> str:
        """Adds a constant under a new name and returns the name."""
        self.arrays[tensor_of(name)] = array
        return name

    def own_node(self, name: str) -> NodeDef:
        """Replaces a shared node by a copy that may be changed; returns the copy."""
        self.nodes[name] = copy_node(self.nodes[name])
        return self.nodes[name]

    def needed(self) -> list[NodeDef]:
        """Returns the nodes that the outputs need, without placeholders."""
        constants = {node_of(tensor) for tensor in self.arrays}
        names = sorted(needed_nodes(self.nodes, self.outputs, constants))
        nodes = [self.nodes[name] for name in names]
        return [node for node in nodes if node.op != "Placeholder"]

    def used_arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that needed nodes read, or that are outputs."""
        used = {tensor_of(t) for node in self.needed() for t in data_inputs(node)}
        used.update(self.outputs)
        return {name: array for name, array in self.arrays.items() if name in used}

    def readers(self) -> dict[str, list[str]]:
        """Returns the names of the needed nodes that read each tensor.

        A node that reads a tensor twice occurs twice.
        """
        readers: dict[str, list[str]] = {}
        for node in self.needed():
            for tensor in data_inputs(node):
                readers.setdefault(tensor_of(tensor), []).append(node.name)
        return readers
