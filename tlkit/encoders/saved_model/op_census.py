"""Which ops a SavedModel holds that matter before it is run anywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

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
