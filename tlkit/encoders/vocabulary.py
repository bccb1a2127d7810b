"""The vocabulary that a text encoder's SavedModel brings along."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def read_vocabulary(module: Any) -> dict[str, Any]:
    """Reads `vocab_file` and `do_lower_case`, as Model Garden's exporter writes them.

    Args:
        module: A restored SavedModel.

    Returns:
        A dict with `vocabulary` (a list of word pieces) and `lower_case`, or an empty
        one where the module has none.
    """
    asset = getattr(module, "vocab_file", None)
    # Of anything else that has a path it is not known where that leads.
    if not isinstance(asset, tf.saved_model.Asset):
        return {}
    data = tf.io.read_file(asset.asset_path).numpy().decode("utf-8")
    pieces = data.removesuffix("\n").split("\n")
    lower_case = getattr(module, "do_lower_case", None)
    return {
        "vocabulary": [piece.removesuffix("\r") for piece in pieces],
        "lower_case": True if lower_case is None else bool(lower_case.numpy()),
    }
