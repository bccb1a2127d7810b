"""Checks before loading that a SavedModel only computes.

A SavedModel is a program whose ops can read and write any file, connect to other
machines and run Python. Some ops run as soon as it is loaded, such as those that fill
tables. An encoder needs no files but its own assets. So a SavedModel that does more is
rejected unless the user trusts its author.
"""

import pathlib
import re

import tensorflow as tf

# Private: a layer's `from_config` has no public way to read the `safe_mode` of
# keras.saving.load_model. tests/encoders/saved_model/test_trust.py notices changes.
from keras.src.saving import serialization_lib

from ...errors import SourceError
from ...sources.store import is_saved_model, parse_saved_model
from .outside_ops import OutsideOp, outside_ops, outside_ops_of_graph

_MOST_LISTED = 6

# Sources that the user trusts in this process, such as preprocessors, which are loaded
# later than the encoder that names them. Never saved in a file: otherwise the author of
# a file could mark sources as trusted.
_TRUSTED: set[str] = set()


def check_saved_model_ops(folder: pathlib.Path, *, trust: bool) -> tuple[str, ...]:
    """Rejects a SavedModel that uses files, connects to other machines or runs Python.

    Ops that only read its own assets or belong to its saver are allowed.

    Args:
        folder: Folder of the SavedModel.
        trust: Whether the user trusts it; then nothing is rejected.

    Returns:
        Sorted types of the ops that use files (its own assets included), connect to
        other machines or run Python; empty if the folder holds no SavedModel.

    Raises:
        SourceError: It holds such ops; the message lists them and their functions.
    """
    if not is_saved_model(folder):
        return ()
    ops = outside_ops(parse_saved_model(folder))
    rejected = [op for op in ops if not op.reads_own_asset]
    if rejected and not trust:
        raise SourceError(
            f"The SavedModel in {folder} does more than compute: "
            f"{_listed(rejected)}. Some of that may run as soon as it is loaded, with "
            "your permissions. If you trust its author, type "
            "tlkit.load_encoder(source, trust=True), or --trust on the command line."
        )
    return tuple(sorted({op.type for op in ops}))


def check_graph_ops(graph: tf.compat.v1.GraphDef, *, trust: bool) -> None:
    """Rejects a graph that uses files, connects to other machines or runs Python.

    Args:
        graph: A graph from a `.keras` file.
        trust: Whether the user trusts the file; then nothing is rejected.

    Raises:
        SourceError: It holds such ops.
    """
    rejected = outside_ops_of_graph(graph)
    if rejected and not trust:
        raise SourceError(
            f"The encoder in this .keras file does more than compute: "
            f"{_listed(rejected)}. If you trust the file's author, type "
            "keras.saving.load_model(path, safe_mode=False), or --trust on the command "
            "line."
        )


def trust_source(source: str) -> None:
    """Records that the user trusts a source, for this process."""
    _TRUSTED.add(str(source))


def is_trusted(source: str) -> bool:
    """Tells whether the user trusts a source in this process."""
    return str(source) in _TRUSTED


def trusts_keras_file() -> bool:
    """Tells whether Keras is loading a file with `safe_mode=False` right now."""
    return serialization_lib.in_safe_mode() is False


def _listed(ops: list[OutsideOp]) -> str:
    """Lists the kinds of ops with their effects and the first function of each."""
    functions: dict[tuple[str, str], list[str]] = {}
    for op in ops:
        functions.setdefault((op.type, op.effect), []).append(op.function)
    texts = [
        f"{kind} {effect} (in {_plain(names[0])}"
        + (f" and {len(names) - 1} more)" if names[1:] else ")")
        for (kind, effect), names in sorted(functions.items())
    ]
    if len(texts) > _MOST_LISTED:
        texts[_MOST_LISTED:] = [f"and {len(texts) - _MOST_LISTED} more kinds"]
    return "; ".join(texts)


def _plain(name: str) -> str:
    """Removes TensorFlow's prefix and number from a function's name."""
    bare = re.sub(r"^__(inference|forward|backward)_|_\d+$", "", name)
    return bare.strip("_") or name
