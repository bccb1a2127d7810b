"""Lists TensorFlow's ops that have effects outside the graph, such as writing files.

Tested in tests/encoders/saved_model/test_trust.py.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from ..graph.flat_graph import NodeDef

# Ops that no TPU runs: text, tables, image files, Python. Ops with strings are found by
# their dtypes.
_HOST = re.compile(
    r"Lookup|HashTable|PyFunc|Decode(Jpeg|Png|Gif|Bmp|Image|And|Wav|Raw|CSV|Base64)"
    r"|Encode(Jpeg|Png|Base64)|ParseExample|ParseSingle|String|Regex|Unicode|Ragged"
    r"|Sentencepiece|Wordpiece|FastBert|CaseFold|NormalizeUTF8|Unique|Sparse"
)
# Ops that may have strings in a TPU program, since TensorFlow removes them from it.
_REMOVED = {"Assert", "Const", "Identity", "Placeholder", "NoOp"}

# Ops with effects outside the graph, from the list of all of TensorFlow's ops.
# XlaCallModule and similar ops are not among them: they call only code that is compiled
# into TensorFlow.
_TYPES_BY_EFFECT = {
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
    "runs a program from its data": r"DatasetFromGraph|MlirPassthroughOp"
    r"|RemoteFusedGraphExecute|TRTEngineOp",
    "belongs to TensorFlow I/O": r"IO>.*",
}
_PATTERNS = {
    effect: re.compile(rf"(Experimental)?({types})(V\d+)?")
    for effect, types in _TYPES_BY_EFFECT.items()
}


def _is_proto_file(source: str) -> bool:
    return source not in ("", "local://") and not source.startswith("bytes://")


# Ops whose effect depends on an attribute: the attribute's name, the effect, and a test
# that tells for the attribute's value whether the op has the effect.
_BY_ATTRIBUTE: dict[str, tuple[str, str, Callable[[str], bool]]] = {
    "PrintV2": ("output_stream", "writes files", lambda x: x.startswith("file:")),
    "FixedUnigramCandidateSampler": ("vocab_file", "reads files", bool),
    "DecodeProtoV2": ("descriptor_source", "reads files", _is_proto_file),
    "EncodeProto": ("descriptor_source", "reads files", _is_proto_file),
}


def outside_effect(node: NodeDef) -> str | None:
    """Returns an op's effect outside the graph, such as `"reads files"`, or `None`."""
    if node.op in _BY_ATTRIBUTE:
        name, effect, has_effect = _BY_ATTRIBUTE[node.op]
        attribute = node.attr[name]
        # A placeholder gets its value from the caller of the function.
        unknown = attribute.WhichOneof("value") == "placeholder"
        value = attribute.s.decode("utf-8", "replace")
        return effect if unknown or has_effect(value) else None
    return _effect_of_type(node.op)


@functools.cache
def _effect_of_type(op: str) -> str | None:
    for effect, pattern in _PATTERNS.items():
        if pattern.fullmatch(op):
            return effect
    return None


def host_ops(functions: Iterable[Any]) -> tuple[str, ...]:
    """Lists the types of the functions' ops that cannot run on a TPU, sorted."""
    graphs = [function.graph.as_graph_def() for function in functions]
    bodies = [nodes for graph in graphs for _, nodes in function_bodies(graph)]
    types = {node.op for nodes in bodies for node in nodes if _needs_host(node)}
    return tuple(sorted(types))


def _needs_host(node: NodeDef) -> bool:
    dtypes = [a.type for a in node.attr.values() if a.HasField("type")]
    has_strings = tf.string.as_datatype_enum in dtypes
    return (has_strings or bool(_HOST.search(node.op))) and node.op not in _REMOVED


def function_bodies(
    graph: tf.compat.v1.GraphDef,
) -> Iterator[tuple[str, Iterable[NodeDef]]]:
    """Yields the name and nodes of each function; the main graph has the name `""`."""
    yield "", graph.node
    for function in graph.library.function:
        yield function.signature.name, function.node_def
