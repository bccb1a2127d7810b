"""Replaces reads and writes of variables in a graph by plain tensors.

A read becomes an `Identity` of the placeholder with the variable's value. A write
becomes the op that computes the new value, which is then an output of the graph.

Tested in tests/encoders/graph/test_flattener.py.
"""

import tensorflow as tf

from .custom_gradients import GRADIENT_ATTRIBUTE
from .flat_graph import (
    CannotOpen,
    Nodes,
    add_constant,
    add_node,
    data_inputs,
    needed_nodes,
    node_of,
    tensor_of,
)

_ASSIGNMENTS = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


class Purifier:
    """Replaces reads and writes of variables, in place.

    Call `bind` for each captured tensor, then `rewrite`. Both methods raise
    `CannotOpen` if the graph cannot be made pure.

    Args:
        nodes: The nodes of an inlined graph by name.

    Attributes:
        specs: Shape and dtype of each variable's value, by placeholder.
        variables: Position of the variable that each placeholder stands for.
        resources: Position of the resource that each placeholder stands for.
        updates: Tensor with the new value of each written variable, by position.
    """

    def __init__(self, nodes: Nodes):
        self.nodes = nodes
        self.specs: dict[str, tf.TensorSpec] = {}
        self.variables: dict[str, int] = {}
        self.resources: dict[str, int] = {}
        self.updates: dict[int, str] = {}

    def bind(self, name: str, captured, variables, resources: list) -> None:
        """Records which variable, resource or constant a placeholder stands for.

        Args:
            name: Name of the placeholder.
            captured: The tensor outside the function that the placeholder receives.
            variables: Position and spec of each variable, by the `id` of its handle.
            resources: The resources known so far; a new one is appended.
        """
        if name not in self.nodes:
            return
        if id(captured) in variables:
            self.variables[name], self.specs[name] = variables[id(captured)]
        elif captured.dtype in (tf.resource, tf.variant):
            known = [i for i, tensor in enumerate(resources) if tensor is captured]
            if not known:
                resources.append(captured)
            self.resources[name] = known[0] if known else len(resources) - 1
        elif hasattr(captured, "numpy"):
            add_constant(self.nodes, name, captured.numpy(), captured.dtype)
        else:
            raise CannotOpen(f"it captures a tensor of another graph (`{name}`)")

    def rewrite(self) -> None:
        """Replaces every op that uses a variable."""
        # Find all accesses before replacing any. Handles pass through `Identity` nodes,
        # and a replaced read is an `Identity` that could be mistaken for one of these.
        accesses = [(n, self._accessed_variable(n)) for n in self.nodes.values()]
        for node, placeholder in accesses:
            if placeholder is not None:
                self._replace_access(node, placeholder)

    def _accessed_variable(self, node) -> str | None:
        """Returns the placeholder of the variable that a node accesses, or `None`."""
        if not node.input or node.input[0].startswith("^") or node.op == "Identity":
            return None
        name = node_of(node.input[0])
        while self.nodes[name].op == "Identity":  # inlining adds chains of `Identity`
            name = node_of(self.nodes[name].input[0])
        return name if name in self.variables else None

    def _replace_access(self, node, placeholder: str) -> None:
        arguments = data_inputs(node)[1:]
        if node.op == "ReadVariableOp":
            self._replace(node, "Identity", [placeholder], T=node.attr["dtype"])
        elif node.op in ("ResourceGather", "ResourceGatherNd"):
            self._replace_gather(node, placeholder, arguments)
        elif node.op in _ASSIGNMENTS:
            self._replace_assignment(node, placeholder, arguments)
        elif node.op == "VariableShape":
            dtype = self.specs[placeholder].dtype
            types = {"T": dtype, "out_type": node.attr["out_type"]}
            self._replace(node, "Shape", [placeholder], **types)
        elif node.op == "VarIsInitializedOp":
            add_constant(self.nodes, node.name, True, tf.bool)
        else:
            raise CannotOpen(f"it uses a variable through the op {node.op}")

    def _replace(self, node, op: str, inputs: list[str], **attributes) -> None:
        control = [name for name in node.input if name.startswith("^")]
        add_node(self.nodes, node.name, op, [*inputs, *control], **attributes)

    def _replace_gather(self, node, placeholder: str, arguments: list[str]) -> None:
        types = {"Tparams": node.attr["dtype"], "Tindices": node.attr["Tindices"]}
        if node.op == "ResourceGatherNd":
            self._replace(node, "GatherNd", [placeholder, *arguments], **types)
            return
        batch_dims = node.attr["batch_dims"]
        axis = f"{node.name}/axis"
        add_constant(self.nodes, axis, batch_dims.i, tf.int32)
        types |= {"Taxis": tf.int32, "batch_dims": batch_dims}
        self._replace(node, "GatherV2", [placeholder, *arguments, axis], **types)

    def _replace_assignment(self, node, placeholder: str, arguments: list[str]) -> None:
        position = self.variables[placeholder]
        if position in self.updates:
            raise CannotOpen("it writes a variable twice in one call")
        dtype = node.attr["dtype"]
        if node.op == "AssignVariableOp":
            self._replace(node, "Identity", arguments, T=dtype)
        else:
            op = "AddV2" if node.op == "AssignAddVariableOp" else "Sub"
            self._replace(node, op, [placeholder, *arguments], T=dtype)
        self.updates[position] = tensor_of(node.name)

    def drop_identities(self) -> None:
        """Makes nodes read the tensor at the beginning of each chain of `Identity`."""
        for node in self.nodes.values():
            for i, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    node.input[i] = self.source(tensor)

    def source(self, tensor: str) -> str:
        """Returns the tensor at the beginning of a chain of `Identity` nodes."""
        node = self.nodes[node_of(tensor)]
        # An `Identity` with a custom gradient stays, since it carries the gradient.
        while node.op == "Identity" and GRADIENT_ATTRIBUTE not in node.attr:
            tensor = node.input[0]
            node = self.nodes[node_of(tensor)]
        return tensor_of(tensor)

    def check_reads_precede_writes(self, outputs: list[str]) -> None:
        """Checks that no variable is read after the function has written it.

        The placeholder has only the old value, so a later read would be wrong.
        """
        needed = needed_nodes(self.nodes, [*outputs, *self.updates.values()])
        for position, update in self.updates.items():
            write = node_of(update)
            readers = {
                name
                for name in needed - {write}
                for tensor in data_inputs(self.nodes[name])
                if self.variables.get(node_of(tensor)) == position
            }
            if any(self._runs_after(reader, write) for reader in readers):
                raise CannotOpen("it reads a variable again after writing it")

    def _runs_after(self, name: str, write: str) -> bool:
        """Tells whether a node depends on a write through data or control edges."""
        seen, stack = {name}, [name]
        while stack:
            for tensor in self.nodes[stack.pop()].input:
                parent = node_of(tensor)
                if parent == write:
                    return True
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return False
