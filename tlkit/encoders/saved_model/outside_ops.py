"""The ops of a SavedModel that reach out of it, told from those on its own files.

Which ops a SavedModel holds that matter before it is run anywhere.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from ...sources.store import UnsafeArchive, place_inside
from ..graph.flat_graph import data_inputs, node_of

# What reads a file whose name is an input: which one.
_READS_BY_NAME = {
    "ReadFile": 0,
    "InitializeTableFromTextFile": 1,
    "InitializeTableFromTextFileV2": 1,
}
_SAVES = ("Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints")
_RESTORES = ("Restore", "RestoreV2", "RestoreSlice")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")

# The graph that is around the functions.
_MAIN = ""

# A node of the graph, or a whole function, by its name.
_Step = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class OutsideOp:
    """An op that touches files, the network or Python.

    Args:
        type: Type of the op.
        effect: What it does, in words.
        where: The function that it is in, or the graph.
        own: Whether it only reads an asset of its own module.
    """

    type: str
    effect: str
    where: str
    own: bool = False


def outside_ops(model: saved_model_pb2.SavedModel) -> list[OutsideOp]:
    """Finds the ops that reach out of a SavedModel.

    What its saver does with its own checkpoint is left out: every SavedModel has that.

    Args:
        model: The file.
    """
    alone = len(model.meta_graphs) == 1
    return [
        op for meta_graph in model.meta_graphs for op in _Program(meta_graph, alone).ops
    ]


def outside_ops_of_graph(graph: tf.compat.v1.GraphDef) -> list[OutsideOp]:
    """Finds them in a graph that has neither a saver nor assets."""
    return [
        OutsideOp(node.op, effect, place or "the graph")
        for place, nodes in places(graph)
        for node in nodes
        if (effect := outside_effect(node))
    ]


class _Program:
    """A graph and its functions: who calls whom, and where names of files come from.

    Args:
        meta_graph: The graph, its saver, its objects and its assets.
        alone: Whether it is the only one in its file.
    """

    def __init__(self, meta_graph: meta_graph_pb2.MetaGraphDef, alone: bool):
        self._meta_graph = meta_graph
        self._objects = meta_graph.object_graph_def
        # So TensorFlow 2 loads its objects, and the graph around the functions is for
        # other loaders.
        self._by_objects = alone and meta_graph.HasField("object_graph_def")
        graph = meta_graph.graph_def
        self._functions = {f.signature.name: f for f in graph.library.function}
        self._nodes = {
            place: {node.name: node for node in nodes} for place, nodes in places(graph)
        }
        # Where two things have one name, nobody knows which of them will run.
        self._names_are_clear = len(graph.library.function) == len(
            self._functions
        ) and all(len(nodes) == len(self._nodes[p]) for p, nodes in places(graph))
        self._assets = [
            node_of(asset.tensor_info.name) if _is_inside(asset.filename) else None
            for asset in meta_graph.asset_file_def
        ]

    @property
    def ops(self) -> list[OutsideOp]:
        """What reaches out of it, apart from its saver."""
        found = []
        for place, nodes in places(self._meta_graph.graph_def):
            for node in nodes:
                effect = outside_effect(node)
                if effect is None or self._is_the_savers(place, node):
                    continue
                own = self._reads_own_file(place, node)
                found.append(OutsideOp(node.op, effect, place or "the graph", own))
        return found

    # === The saver ===

    def _is_the_savers(self, place: str, node: tf.compat.v1.NodeDef) -> bool:
        """Whether an op writes or reads checkpoints for the saver, and for it only."""
        step = (place, "") if place else (_MAIN, node.name)
        if node.op in _SAVES:
            mine, others = self._saving, self._restoring | self._elsewhere
        elif node.op in _RESTORES:
            mine, others = self._restoring, self._elsewhere
        else:
            return False
        return self._names_are_clear and step in mine and step not in others

    @functools.cached_property
    def _saving(self) -> frozenset[_Step]:
        return self._reached([self._meta_graph.saver_def.save_tensor_name])

    @functools.cached_property
    def _restoring(self) -> frozenset[_Step]:
        return self._reached([self._meta_graph.saver_def.restore_op_name])

    @functools.cached_property
    def _elsewhere(self) -> frozenset[_Step]:
        """What objects, signatures and all else that is not the saver reaches."""
        savers = self._saving | self._restoring
        ends = [name for name in self._nodes[_MAIN] if (_MAIN, name) not in savers]
        for signature in self._meta_graph.signature_def.values():
            ends += [output.name for output in signature.outputs.values()]
        for collection in self._meta_graph.collection_def.values():
            ends += collection.node_list.value
        library = self._meta_graph.graph_def.library
        functions = {name for name in self._functions if (name, "") not in savers}
        functions |= {*self._objects.concrete_functions}
        for gradient in (*library.gradient, *library.registered_gradients):
            functions.add(gradient.gradient_func)
        return self._reached(ends, functions)

    def _reached(
        self, ends: Iterable[str], functions: Iterable[str] = ()
    ) -> frozenset[_Step]:
        """Nodes of the graph that lead to some ends, and functions that they call."""
        main = self._nodes[_MAIN]
        stack = [(_MAIN, node_of(end)) for end in ends if node_of(end) in main]
        stack += [(name, "") for name in functions if name in self._functions]
        seen = set(stack)
        while stack:
            place, name = stack.pop()
            nodes = self._nodes[place].values() if place else [main[name]]
            found = {(called, "") for node in nodes for called in self._called_by(node)}
            if place == _MAIN:
                before = {node_of(tensor) for tensor in main[name].input}
                found |= {(_MAIN, other) for other in before & main.keys()}
            stack += found - seen
            seen |= found
        return frozenset(seen)

    def _called_by(self, node: tf.compat.v1.NodeDef) -> Iterator[str]:
        """Functions that a node names: as its op, or in an attribute."""
        if node.op in self._functions:
            yield node.op
        for attribute in node.attr.values():
            kind = attribute.WhichOneof("value")
            if kind == "func":
                yield from {attribute.func.name} & self._functions.keys()
            elif kind == "list":
                names = {function.name for function in attribute.list.func}
                yield from names & self._functions.keys()

    # === Names of files ===

    def _reads_own_file(self, place: str, node: tf.compat.v1.NodeDef) -> bool:
        """Whether an op reads a file, and that can be nothing but an asset."""
        position = _READS_BY_NAME.get(node.op)
        inputs = data_inputs(node)
        if position is None or position >= len(inputs) or not self._names_are_clear:
            return False
        return self._is_asset(place, inputs[position], frozenset())

    def _is_asset(self, place: str, tensor: str, seen: frozenset[_Step]) -> bool:
        """Whether a string can be nothing but the path of an asset."""
        if (place, tensor) in seen:
            return False
        seen |= {(place, tensor)}
        node = self._nodes[place].get(node_of(tensor))
        if node is None:
            return place != _MAIN and self._argument_is_asset(place, tensor, seen)
        inputs = data_inputs(node)
        if node.op == "Identity" and inputs:
            return self._is_asset(place, inputs[0], seen)
        # Those that a loader fills in are listed.
        return place == _MAIN and node.name in self._assets

    def _argument_is_asset(self, place: str, name: str, seen: frozenset[_Step]) -> bool:
        """Whether every call of a function gives it an asset there."""
        arguments = self._functions[place].signature.input_arg
        names = [argument.name for argument in arguments]
        if name not in names or any(
            a.number_attr or a.type_list_attr for a in arguments
        ):
            return False
        position = names.index(name)
        answers = [
            self._gives_asset(caller, node, position, seen)
            for caller, node in self._callers.get(place, ())
            if not (caller == _MAIN and self._by_objects)
        ]
        if place in self._objects.concrete_functions:
            answers.append(self._captures_asset(place, position - len(names)))
        return bool(answers) and all(answers)

    @functools.cached_property
    def _callers(self) -> dict[str, list[tuple[str, tf.compat.v1.NodeDef]]]:
        callers = collections.defaultdict(list)
        for place, nodes in self._nodes.items():
            for node in nodes.values():
                for name in self._called_by(node):
                    callers[name].append((place, node))
        return callers

    def _gives_asset(
        self,
        place: str,
        node: tf.compat.v1.NodeDef,
        position: int,
        seen: frozenset[_Step],
    ) -> bool:
        """Whether a call gives an asset as one of its arguments."""
        inputs = data_inputs(node)
        plain = node.op in _CALLS or node.op in self._functions
        if not plain or position >= len(inputs):
            return False
        return self._is_asset(place, inputs[position], seen)

    def _captures_asset(self, place: str, position: int) -> bool:
        """Whether a capture of a function is an asset.

        Args:
            place: Name of the function.
            position: Of the argument, from the end: captures stand there.
        """
        captures = self._objects.concrete_functions[place].bound_inputs
        if position < -len(captures):
            return False  # an argument that the caller gives
        captured = captures[position]
        if not 0 <= captured < len(self._objects.nodes):
            return False
        asset = self._objects.nodes[captured]
        index = asset.asset.asset_file_def_index
        is_asset = asset.WhichOneof("kind") == "asset"
        return is_asset and 0 <= index < len(self._assets) and bool(self._assets[index])


def _is_inside(name: str) -> bool:
    try:
        place_inside(pathlib.Path("assets"), name)
    except UnsafeArchive:
        return False
    return True


# === Op census ===

# What no TPU runs: text, tables, pictures in files, Python. Anything with strings is
# found by its dtype.
_HOST = re.compile(
    r"Lookup|HashTable|PyFunc|Decode(Jpeg|Png|Gif|Bmp|Image|And|Wav|Raw|CSV|Base64)"
    r"|Encode(Jpeg|Png|Base64)|ParseExample|ParseSingle|String|Regex|Unicode|Ragged"
    r"|Sentencepiece|Wordpiece|FastBert|CaseFold|NormalizeUTF8|Unique|Sparse"
)
# They carry strings, and are left out where there are none.
_HARMLESS = {"Assert", "Const", "Identity", "Placeholder", "NoOp"}

# What reaches out of a graph, from the list of all of TensorFlow's ops. XlaCallModule
# and its like are left out: they call nothing but what is compiled into TensorFlow.
_OUTSIDE = {
    "reads files": r"ReadFile|MatchingFiles|RecordInput|ImmutableConst|WholeFileReader"
    r"|(TextLine|TFRecord|FixedLengthRecord|LMDB)(Reader|Dataset)|LoadAndRemapMatrix"
    r"|(CSV|Sql|MatchingFiles|Load|ListSnapshotChunks)Dataset|GenerateVocabRemapping"
    r"|Snapshot(Nested|Chunk)?Dataset(Reader)?|InitializeTableFromTextFile|Skipgram"
    r"|Restore(Slice)?|InitializeTRTResource",
    "writes files": r"WriteFile|Save(Slices)?|MergeV2Checkpoints|DistributedSave"
    r"|(Save|Cache)Dataset|DatasetToTFRecord|Write\w*Summary|CreateSummary\w+"
    r"|(Close|Flush)?SummaryWriter|ImportEvent|StatsAggregatorSetSummaryWriter"
    r"|SerializeTRTResource",
    "connects to other machines": r"Rpc\w*|TryRpc|DataServiceDataset|RegisterDataset"
    r"|\w*(BigQuery|Bigtable|PubSub|Kafka|Kinesis)\w*|DebugIdentity|DebugNanCount"
    r"|DebugNumericSummary(?!V2)",
    "runs Python": r"(Eager)?PyFunc(Stateless)?",
    "sets up file systems": r"\w*FileSystem\w*|Gcs\w+",
    "runs a program that stands in its data": r"DatasetFromGraph|MlirPassthroughOp"
    r"|RemoteFusedGraphExecute|TRTEngineOp",
    "belongs to TensorFlow I/O": r"IO>.*",
}
_OUTSIDE_PATTERNS = {
    does: re.compile(rf"(Experimental)?({names})(V\d+)?")
    for does, names in _OUTSIDE.items()
}

# These do so only where an attribute says where to.
_OUTSIDE_BY_ATTRIBUTE: dict[str, tuple[str, str, Callable[[str], bool]]] = {
    "PrintV2": ("output_stream", "writes files", lambda x: x.startswith("file:")),
    "FixedUnigramCandidateSampler": ("vocab_file", "reads files", bool),
}
for _codec in ("DecodeProtoV2", "EncodeProto"):
    _OUTSIDE_BY_ATTRIBUTE[_codec] = (
        *("descriptor_source", "reads files"),
        lambda x: x not in ("", "local://") and not x.startswith("bytes://"),
    )


def host_ops(functions: Iterable[Any]) -> tuple[str, ...]:
    """Ops that no TPU runs.

    Args:
        functions: Concrete functions.

    Returns:
        Names of types of ops, sorted.
    """
    found = set()
    for function in functions:
        for _, nodes in places(function.graph.as_graph_def()):
            found |= {node.op for node in nodes if _is_for_the_host(node)}
    return tuple(sorted(found))


def _is_for_the_host(node: tf.compat.v1.NodeDef) -> bool:
    dtypes = [a.type for a in node.attr.values() if a.HasField("type")]
    words = tf.string.as_datatype_enum in dtypes
    return (words or bool(_HOST.search(node.op))) and node.op not in _HARMLESS


def outside_effect(node: tf.compat.v1.NodeDef) -> str | None:
    """What an op does beyond computing: `"reads files"`, say, or `None`."""
    if node.op in _OUTSIDE_BY_ATTRIBUTE:
        attribute, effect, reaches_out = _OUTSIDE_BY_ATTRIBUTE[node.op]
        given = node.attr[attribute]
        # A function's caller may say what stands in the place of a placeholder.
        later = given.WhichOneof("value") == "placeholder"
        reaches = later or reaches_out(given.s.decode("utf-8", "replace"))
        return effect if reaches else None
    return _effect_of_type(node.op)


@functools.cache
def _effect_of_type(kind: str) -> str | None:
    for effect, pattern in _OUTSIDE_PATTERNS.items():
        if pattern.fullmatch(kind):
            return effect
    return None


def places(
    graph: tf.compat.v1.GraphDef,
) -> Iterator[tuple[str, Iterable[tf.compat.v1.NodeDef]]]:
    """Yields the nodes of a graph under `""`, and of each function under its name."""
    yield "", graph.node
    for function in graph.library.function:
        yield function.signature.name, function.node_def
