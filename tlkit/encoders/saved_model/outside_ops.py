"""Finds ops of a SavedModel that use files, connect to other machines or run Python.

Two kinds of such ops, which most SavedModels contain, are harmless:

* Ops of the saver, which write and read the SavedModel's own checkpoint. They are left
  out of the results if nothing but the saver uses them.
* Ops that read an asset of the SavedModel itself. They are marked as such if their file
  name can only be that of an asset, through all calls and captures of functions.

Tested in tests/encoders/saved_model/test_trust.py.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from ...sources.store import UnsafeArchive, path_inside
from ..graph.flat_graph import NodeDef, data_inputs, node_of
from .op_effects import function_bodies, outside_effect

# Ops that read the file whose name is one of their inputs, and the index of that input.
_FILE_NAME_INPUTS = {
    "ReadFile": 0,
    "InitializeTableFromTextFile": 1,
    "InitializeTableFromTextFileV2": 1,
}
_SAVE_OPS = ("Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints")
_RESTORE_OPS = ("Restore", "RestoreV2", "RestoreSlice")
_CALL_OPS = ("PartitionedCall", "StatefulPartitionedCall")

# Name of the main graph, which contains the library of functions.
_MAIN = ""

# A vertex of the call graph: a node of the main graph as ("", its name), or a whole
# function as (its name, "").
_Vertex = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class OutsideOp:
    """An op that uses files, connects to other machines or runs Python.

    Args:
        type: Type of the op.
        effect: Its effect in words, such as `"reads files"`.
        function: Name of the function that it is in, or `"the graph"`.
        reads_own_asset: Whether it does nothing but read an asset of its own module.
    """

    type: str
    effect: str
    function: str
    reads_own_asset: bool = False


def outside_ops(model: saved_model_pb2.SavedModel) -> list[OutsideOp]:
    """Finds the ops of a SavedModel with effects outside it, except those of its saver.

    Such an op uses files, connects to other machines or runs Python.
    """
    single = len(model.meta_graphs) == 1
    return [op for graph in model.meta_graphs for op in _SavedGraph(graph, single).ops]


def outside_ops_of_graph(graph: tf.compat.v1.GraphDef) -> list[OutsideOp]:
    """Finds the ops with effects outside a graph that has no saver and no assets."""
    return [
        OutsideOp(node.op, effect, function or "the graph")
        for function, nodes in function_bodies(graph)
        for node in nodes
        if (effect := outside_effect(node))
    ]


class _SavedGraph:
    """A graph of a SavedModel, with the calls of functions and origins of file names.

    Args:
        meta_graph: The graph with its saver, objects and assets.
        single: Whether it is the only graph in the SavedModel.
    """

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, single: bool):
        self._meta_graph = meta_graph
        self._objects = meta_graph.object_graph_def
        # TensorFlow 2 loads the objects of a SavedModel and never runs its main graph,
        # unless there are several graphs or no objects.
        self._main_is_unused = single and meta_graph.HasField("object_graph_def")
        graph = meta_graph.graph_def
        bodies = list(function_bodies(graph))
        self._functions = {f.signature.name: f for f in graph.library.function}
        self._nodes = {
            function: {node.name: node for node in nodes} for function, nodes in bodies
        }
        # If two functions or nodes share a name, it is unknown which of them runs.
        self._names_are_unique = len(bodies) == len(self._functions) + 1 and all(
            len(nodes) == len(self._nodes[function]) for function, nodes in bodies
        )
        self._assets = [
            node_of(asset.tensor_info.name) if _is_inside(asset.filename) else None
            for asset in meta_graph.asset_file_def
        ]

    @property
    def ops(self) -> list[OutsideOp]:
        """Returns the ops with effects outside the SavedModel, except its saver's."""
        return [
            OutsideOp(
                node.op,
                effect,
                function or "the graph",
                self._reads_own_asset(function, node),
            )
            for function, nodes in function_bodies(self._meta_graph.graph_def)
            for node in nodes
            if (effect := outside_effect(node)) and not self._is_savers(function, node)
        ]

    # === The saver ===

    def _is_savers(self, function: str, node: NodeDef) -> bool:
        """Tells whether an op handles checkpoints and is used by the saver only."""
        vertex = (function, "") if function else (_MAIN, node.name)
        if node.op in _SAVE_OPS:
            own, others = self._saving, self._restoring | self._not_savers
        elif node.op in _RESTORE_OPS:
            own, others = self._restoring, self._not_savers
        else:
            return False
        return self._names_are_unique and vertex in own and vertex not in others

    @functools.cached_property
    def _saving(self) -> frozenset[_Vertex]:
        return self._reachable([self._meta_graph.saver_def.save_tensor_name])

    @functools.cached_property
    def _restoring(self) -> frozenset[_Vertex]:
        return self._reachable([self._meta_graph.saver_def.restore_op_name])

    @functools.cached_property
    def _not_savers(self) -> frozenset[_Vertex]:
        """Returns the vertices that anything besides the saver needs: signatures, …"""
        savers = self._saving | self._restoring
        tensors = [name for name in self._nodes[_MAIN] if (_MAIN, name) not in savers]
        for signature in self._meta_graph.signature_def.values():
            tensors += [output.name for output in signature.outputs.values()]
        for collection in self._meta_graph.collection_def.values():
            tensors += collection.node_list.value
        library = self._meta_graph.graph_def.library
        functions = {name for name in self._functions if (name, "") not in savers}
        functions |= {*self._objects.concrete_functions}
        for gradient in (*library.gradient, *library.registered_gradients):
            functions.add(gradient.gradient_func)
        return self._reachable(tensors, functions)

    def _reachable(
        self, tensors: Iterable[str], functions: Iterable[str] = ()
    ) -> frozenset[_Vertex]:
        """Finds the vertices needed by some main-graph tensors and some functions."""
        main = self._nodes[_MAIN]
        stack = [(_MAIN, node_of(tensor)) for tensor in tensors]
        stack = [vertex for vertex in stack if vertex[1] in main]
        stack += [(name, "") for name in functions if name in self._functions]
        reachable = set(stack)
        while stack:
            function, name = stack.pop()
            nodes = self._nodes[function].values() if function else [main[name]]
            needed = {(called, "") for node in nodes for called in self._called(node)}
            if function == _MAIN:
                inputs = {node_of(tensor) for tensor in main[name].input}
                needed |= {(_MAIN, other) for other in inputs & main.keys()}
            stack += needed - reachable
            reachable |= needed
        return frozenset(reachable)

    def _called(self, node: NodeDef) -> Iterator[str]:
        """Yields the functions that a node calls, by its op type or by an attribute."""
        if node.op in self._functions:
            yield node.op
        for attribute in node.attr.values():
            kind = attribute.WhichOneof("value")
            if kind == "func":
                yield from {attribute.func.name} & self._functions.keys()
            elif kind == "list":
                names = {function.name for function in attribute.list.func}
                yield from names & self._functions.keys()

    # === File names ===

    def _reads_own_asset(self, function: str, node: NodeDef) -> bool:
        """Tells whether an op reads a file that can only be an asset of the module."""
        position = _FILE_NAME_INPUTS.get(node.op)
        inputs = data_inputs(node)
        if position is None or position >= len(inputs) or not self._names_are_unique:
            return False
        return self._is_asset(function, inputs[position], frozenset())

    def _is_asset(
        self, function: str, tensor: str, seen: frozenset[tuple[str, str]]
    ) -> bool:
        """Tells whether a tensor of a function can only be the path of an asset.

        `seen` contains the pairs of function and tensor that led here, to stop at
        recursive calls.
        """
        if (function, tensor) in seen:
            return False
        seen |= {(function, tensor)}
        node = self._nodes[function].get(node_of(tensor))
        if node is None:
            return function != _MAIN and self._argument_is_asset(function, tensor, seen)
        inputs = data_inputs(node)
        if node.op == "Identity" and inputs:
            return self._is_asset(function, inputs[0], seen)
        # On loading, TensorFlow feeds the paths of assets to these main-graph nodes.
        return function == _MAIN and node.name in self._assets

    def _argument_is_asset(
        self, function: str, name: str, seen: frozenset[tuple[str, str]]
    ) -> bool:
        """Tells whether every call of a function passes an asset's path for `name`."""
        arguments = self._functions[function].signature.input_arg
        names = [argument.name for argument in arguments]
        if name not in names or any(
            a.number_attr or a.type_list_attr for a in arguments
        ):
            return False
        position = names.index(name)
        checks = []
        for caller, node in self._callers.get(function, ()):
            if caller != _MAIN or not self._main_is_unused:
                is_call = node.op in _CALL_OPS or node.op in self._functions
                passed = data_inputs(node)[position : position + 1]
                is_asset = passed and self._is_asset(caller, passed[0], seen)
                checks.append(is_call and is_asset)
        if function in self._objects.concrete_functions:
            checks.append(self._captures_asset(function, position - len(names)))
        return bool(checks) and all(checks)

    @functools.cached_property
    def _callers(self) -> dict[str, list[tuple[str, NodeDef]]]:
        callers = collections.defaultdict(list)
        for function, nodes in self._nodes.items():
            for node in nodes.values():
                for name in self._called(node):
                    callers[name].append((function, node))
        return callers

    def _captures_asset(self, function: str, position: int) -> bool:
        """Tells whether the argument at a negative position is a captured asset."""
        captures = self._objects.concrete_functions[function].bound_inputs
        if position < -len(captures):
            return False  # the caller passes the argument: it is not captured
        captured = captures[position]
        if not 0 <= captured < len(self._objects.nodes):
            return False
        asset = self._objects.nodes[captured]
        index = asset.asset.asset_file_def_index
        is_asset = asset.WhichOneof("kind") == "asset"
        return is_asset and 0 <= index < len(self._assets) and bool(self._assets[index])


def _is_inside(name: str) -> bool:
    """Tells whether an asset's file name stays inside the folder of assets."""
    try:
        path_inside(pathlib.Path("assets"), name)
    except UnsafeArchive:
        return False
    return True
