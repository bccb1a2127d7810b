"""Which ops a SavedModel holds that matter before it is run anywhere."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

# The file's own schema, which TensorFlow gives no other name.
from tensorflow.core.protobuf import saved_model_pb2

# What no TPU runs: text, tables, pictures in files, Python. Anything with strings is
# found by its dtype.
_HOST = re.compile(
    r"Lookup|HashTable|PyFunc|Decode(Jpeg|Png|Gif|Bmp|Image|And|Wav|Raw|CSV|Base64)"
    r"|Encode(Jpeg|Png|Base64)|ParseExample|ParseSingle|String|Regex|Unicode|Ragged"
    r"|Sentencepiece|Wordpiece|FastBert|CaseFold|NormalizeUTF8|Unique|Sparse"
)
# What reads or writes files, or speaks to other machines.
_FILES = re.compile(
    r"ReadFile|WriteFile|MatchingFiles|(TextLine|TFRecord|FixedLength|WholeFile|LMDB)"
    r".*(Reader|Dataset)|InitializeTableFromTextFile|SummaryWriter|SummaryFile|Rpc"
    r"|BigQuery|Bigtable|PubSub|Kafka|GenerateBigQuery|DebugIdentity|SaveSlices"
    r"|DatasetToTFRecord|SaveDataset|LoadDataset|SnapshotDataset|PyFunc"
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
        graph = function.graph.as_graph_def()
        for node in _nodes(graph):
            dtypes = [a.type for a in node.attr.values() if a.HasField("type")]
            words = tf.string.as_datatype_enum in dtypes
            if (words or _HOST.search(node.op)) and node.op not in _HARMLESS:
                found.add(node.op)
    return tuple(sorted(found))


# They carry strings, and are left out where there are none.
_HARMLESS = {"Assert", "Const", "Identity", "Placeholder", "NoOp"}


def file_ops(folder: pathlib.Path) -> tuple[str, ...]:
    """Ops that touch files or the network, anywhere in a SavedModel.

    Checkpoints apart: every SavedModel has the ops that read its own.

    Args:
        folder: Folder with a `saved_model.pb`.

    Returns:
        Names of types of ops, sorted; empty where the file is not of that form.
    """
    path = folder / "saved_model.pb"
    if not path.is_file():
        return ()
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    nodes = (node for graph in model.meta_graphs for node in _nodes(graph.graph_def))
    return tuple(sorted({node.op for node in nodes if _FILES.search(node.op)}))


def _nodes(graph: tf.compat.v1.GraphDef) -> Iterator[tf.compat.v1.NodeDef]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
