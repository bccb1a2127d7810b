"""A graph whose variables have become constants, while it is being folded."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from ..graph.flat_graph import data_inputs, node_of, reached, tensor_of, without_control


@dataclasses.dataclass
class Constants:
    """A pure graph in which variables have become constants; it is changed in place.

    Args:
        nodes: The nodes by name, among them such that nothing needs anymore.
        arrays: Values of the tensors that no node makes, by their full names.
        wanted: Full names of the tensors that are wanted, so must stay.
    """

    nodes: dict[str, tf.compat.v1.NodeDef]
    arrays: dict[str, np.ndarray]
    wanted: tuple[str, ...]

    def array(self, tensor: str) -> np.ndarray | None:
        """The value of a tensor; `None` if it is no constant."""
        node = self.nodes.get(node_of(tensor))
        if node is not None and node.op == "Const":
            return tf.make_ndarray(node.attr["value"].tensor)
        return self.arrays.get(tensor_of(tensor))

    def add(self, name: str, array: np.ndarray) -> str:
        """Adds a constant of a new name, and gives that name."""
        self.arrays[tensor_of(name)] = array
        return name

    def change(self, name: str) -> tf.compat.v1.NodeDef:
        """Puts a copy in the place of a node, since the graph is not ours alone."""
        self.nodes[name] = without_control(self.nodes[name])
        return self.nodes[name]

    def needed(self) -> list[tf.compat.v1.NodeDef]:
        """The nodes that the wanted tensors need, without placeholders."""
        made = {node_of(tensor) for tensor in self.arrays}
        names = sorted(reached(self.nodes, self.wanted, made))
        nodes = [self.nodes[name] for name in names]
        return [node for node in nodes if node.op != "Placeholder"]

    def used_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that these nodes read, or that are wanted themselves."""
        read = {tensor_of(t) for node in self.needed() for t in data_inputs(node)}
        used = read.union(self.wanted)
        return {name: array for name, array in self.arrays.items() if name in used}

    def readers(self) -> dict[str, list[str]]:
        """Names of the nodes that read each tensor, once for each time they do."""
        found: dict[str, list[str]] = {}
        for node in self.needed():
            for tensor in data_inputs(node):
                found.setdefault(tensor_of(tensor), []).append(node.name)
        return found
