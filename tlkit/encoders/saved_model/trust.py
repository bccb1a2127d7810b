"""What a SavedModel would do beside computing, found in its file before it is loaded.

A SavedModel is a program. Some of it runs as soon as it is loaded (what fills tables),
and its ops can read any file and write it elsewhere. No encoder needs more than its own
assets, so one that does is refused unless its user trusts whoever made it.
"""

from __future__ import annotations

import pathlib
import re

import tensorflow as tf

# Private: keras.saving.load_model's `safe_mode` has no other way to a layer's
# `from_config`. tests/encoders/saved_model/test_trust.py notices when it changes.
from keras.src.saving import serialization_lib

from ...errors import SourceError
from ...sources.store import is_saved_model, parse_saved_model
from .outside_ops import OutsideOp, outside_ops, outside_ops_of_graph

_LISTED = 6

# Sources that the user of this process trusts, such as preprocessors, which are loaded
# later than the encoder that names them. Never written to a file: who made the file
# would decide then.
_TRUSTED: set[str] = set()


def check_saved_model_ops(folder: pathlib.Path, *, trust: bool) -> tuple[str, ...]:
    """Refuses a SavedModel that reads, writes, connects or runs Python.

    Reading the module's own assets is fine, and so is what its saver does with its
    checkpoint.

    Args:
        folder: Folder of the SavedModel.
        trust: Whether the user trusts it: then nothing is refused.

    Returns:
        Names of types of ops that touch files or the network, those that are fine
        among them, sorted; empty where the folder holds no SavedModel.

    Raises:
        SourceError: It holds such ops. Lists them, and the functions that they are in.
    """
    if not is_saved_model(folder):
        return ()
    found = outside_ops(parse_saved_model(folder))
    refused = [op for op in found if not op.own]
    if refused and not trust:
        raise SourceError(
            f"The SavedModel in {folder} does more than compute: {_listed(refused)}. "
            "Some of that may run as soon as it is loaded, with your rights. If you "
            "trust whoever made it, say so: tlkit.load_encoder(source, trust=True), "
            "or --trust on the command line."
        )
    return tuple(sorted({op.type for op in found}))


def check_graph_ops(graph: tf.compat.v1.GraphDef, *, trust: bool) -> None:
    """Refuses a graph of a `.keras` file that reads, writes, connects or runs Python.

    Args:
        graph: The graph.
        trust: Whether the user trusts the file.

    Raises:
        SourceError: It holds such ops.
    """
    refused = outside_ops_of_graph(graph)
    if refused and not trust:
        raise SourceError(
            f"The encoder in this .keras file does more than compute: "
            f"{_listed(refused)}. If you trust whoever made the file, say so: "
            "keras.saving.load_model(path, safe_mode=False), or --trust on the command "
            "line."
        )


def trust_source(source: str) -> None:
    """Notes that the user of this process trusts a source."""
    _TRUSTED.add(str(source))


def is_trusted(source: str) -> bool:
    """Tells whether the user of this process trusts a source."""
    return str(source) in _TRUSTED


def trusts_keras_file() -> bool:
    """Tells whether Keras is loading a file with `safe_mode=False` right now."""
    return serialization_lib.in_safe_mode() is False


def _listed(ops: list[OutsideOp]) -> str:
    """What each kind of op does, and where the first of it stands."""
    first: dict[tuple[str, str], list[str]] = {}
    for op in ops:
        first.setdefault((op.type, op.effect), []).append(op.where)
    texts = [
        f"{kind} {effect} (in {_plain(places[0])}"
        + (f" and {len(places) - 1} more)" if places[1:] else ")")
        for (kind, effect), places in sorted(first.items())
    ]
    more = [f"and {len(texts) - _LISTED} more kinds"] if len(texts) > _LISTED else []
    return "; ".join([*texts[:_LISTED], *more])


def _plain(name: str) -> str:
    """A function's name without what TensorFlow puts around it."""
    bare = re.sub(r"^__(inference|forward|backward)_|_\d+$", "", name)
    return bare.strip("_") or name
