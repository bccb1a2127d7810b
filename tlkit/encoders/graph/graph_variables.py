"""Rewrites reads and writes of variables as plain tensors."""

from __future__ import annotations

import tensorflow as tf

from .custom_gradients import NAMED
from .flat_graph import (
    CannotOpen,
    constant,
    data_inputs,
    make_node,
    node_of,
    reached,
    tensor_of,
    type_attribute,
)

UPDATES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


class Purifier:
    """Rewrites reads and writes of variables, node by node, in place.

    Args:
        nodes: The nodes of an inlined graph by name.
    """

    def __init__(self, nodes: dict[str, tf.compat.v1.NodeDef]):
        self.nodes = nodes
        self.specs: dict[str, tf.TensorSpec] = {}
        self.variables: dict[str, int] = {}
        self.resources: dict[str, int] = {}
        self.updates: dict[int, str] = {}
        self.writes: dict[int, str] = {}

    def bind(self, name: str, outer, variables, resources: list) -> None:
        """Notes what the placeholder of a capture stands for."""
        if name not in self.nodes:
            return
        if id(outer) in variables:
            self.variables[name], self.specs[name] = variables[id(outer)]
        elif outer.dtype in (tf.resource, tf.variant):
            known = [i for i, tensor in enumerate(resources) if tensor is outer]
            if not known:
                resources.append(outer)
            self.resources[name] = known[0] if known else len(resources) - 1
        elif hasattr(outer, "numpy"):
            self.nodes[name].CopyFrom(constant(name, outer.numpy(), outer.dtype))
        else:
            raise CannotOpen(f"it captures a tensor of another graph (`{name}`)")

    def rewrite(self) -> None:
        # All found before any is rewritten: a read becomes an Identity, and a chain of
        # Identity is how a handle travels.
        accesses = [(n, self._variable_read_by(n)) for n in self.nodes.values()]
        for node, variable in accesses:
            if variable is not None:
                self._rewrite_access(node, *variable)

    def _variable_read_by(self, node) -> tuple[str, int] | None:
        """The placeholder and the position of the variable whose handle is input 0."""
        if not node.input or node.input[0].startswith("^") or node.op == "Identity":
            return None
        root = self._root(node.input[0])
        return (root, self.variables[root]) if root in self.variables else None

    def _root(self, tensor: str) -> str:
        """Where a handle comes from: inlining leaves chains of Identity behind."""
        name = node_of(tensor)
        while self.nodes[name].op == "Identity":
            name = node_of(self.nodes[name].input[0])
        return name

    def _rewrite_access(self, node, value: str, position: int) -> None:
        rest = [name for name in data_inputs(node)][1:]
        if node.op == "ReadVariableOp":
            self._become(node, "Identity", [value], T=node.attr["dtype"])
        elif node.op in ("ResourceGather", "ResourceGatherNd"):
            self._become_gather(node, value, rest)
        elif node.op in UPDATES:
            self._become_update(node, value, position, rest)
        elif node.op == "VariableShape":
            dtype = type_attribute(self.specs[value].dtype)
            types = {"T": dtype, "out_type": node.attr["out_type"]}
            self._become(node, "Shape", [value], **types)
        elif node.op == "VarIsInitializedOp":
            node.CopyFrom(constant(node.name, True, tf.bool))
        else:
            raise CannotOpen(f"it uses a variable through the op {node.op}")

    def _become(self, node, op: str, inputs: list[str], **attributes) -> None:
        control = [name for name in node.input if name.startswith("^")]
        node.CopyFrom(make_node(node.name, op, [*inputs, *control], **attributes))

    def _become_gather(self, node, value: str, rest: list[str]) -> None:
        types = {"Tparams": node.attr["dtype"], "Tindices": node.attr["Tindices"]}
        if node.op == "ResourceGatherNd":
            self._become(node, "GatherNd", [value, *rest], **types)
            return
        batch_dims = node.attr["batch_dims"].i
        axis = f"{node.name}/axis"
        self.nodes[axis] = constant(axis, batch_dims, tf.int32)
        int32 = type_attribute(tf.int32)
        types |= {"Taxis": int32, "batch_dims": node.attr["batch_dims"]}
        self._become(node, "GatherV2", [value, *rest, axis], **types)

    def _become_update(self, node, value: str, position: int, rest: list[str]) -> None:
        if position in self.updates:
            raise CannotOpen("it writes a variable twice in one call")
        dtype = node.attr["dtype"]
        if node.op == "AssignVariableOp":
            self._become(node, "Identity", rest, T=dtype)
        else:
            op = "AddV2" if node.op == "AssignAddVariableOp" else "Sub"
            self._become(node, op, [value, *rest], T=dtype)
        self.updates[position] = f"{node.name}:0"
        self.writes[position] = node.name

    def drop_identities(self) -> None:
        """Lets every node read from where its tensors really come."""
        for node in self.nodes.values():
            for i, tensor in enumerate(node.input):
                if not tensor.startswith("^"):
                    node.input[i] = self.source(tensor)

    def source(self, tensor: str) -> str:
        """The tensor at the beginning of a chain of Identity nodes."""
        node = self.nodes[node_of(tensor)]
        # An Identity that names a gradient of its own is there for the gradient.
        while node.op == "Identity" and NAMED not in node.attr:
            tensor = node.input[0]
            node = self.nodes[node_of(tensor)]
        return tensor_of(tensor)

    def refuse_reads_after_writes(self, outputs: list[str]) -> None:
        """A read that is ordered after a write of the same variable is not pure."""
        keep = reached(self.nodes, [*outputs, *self.updates.values()], set())
        for position, write in self.writes.items():
            readers = {
                name
                for name in keep
                if name != write
                and any(
                    self.variables.get(node_of(i)) == position
                    for i in data_inputs(self.nodes[name])
                )
            }
            if any(self._runs_after(reader, write) for reader in readers):
                raise CannotOpen("it reads a variable again after writing it")

    def _runs_after(self, name: str, write: str) -> bool:
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
