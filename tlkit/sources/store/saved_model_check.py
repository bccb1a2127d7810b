"""What makes a folder a SavedModel that will load, told apart before loading it."""

from __future__ import annotations

import pathlib
import re

import tensorflow as tf
from google.protobuf import message, text_format
from tensorflow.core.protobuf import saved_model_pb2

from ...errors import SourceError
from .archives import UnsafeArchive, place_inside

_ACCEPTED = (
    "A source is a folder with a saved_model.pb (such as TF Hub and "
    "tf.saved_model.save write), a folder <name>/<version>/ of those, or a "
    "Keras or Hugging Face preset with a config.json."
)


def check_saved_model(folder: pathlib.Path, *, full: bool) -> None:
    """Raises if a folder is not a SavedModel, or not all of one.

    Args:
        folder: The folder.
        full: Whether to read every variable, which compares the checksums, too.

    Raises:
        SourceError: Says what is wrong and what would be accepted.
    """
    model = parse_saved_model(folder)
    prefix = folder / "variables" / "variables"
    if prefix.with_suffix(".index").exists():
        _check_shards(folder, prefix)
        if full:
            _check_tensors(folder, prefix)
    elif _has_variables(model):
        raise SourceError(
            f"The SavedModel in {folder} has variables, but variables/variables.index "
            "is missing. Fetch or copy the whole folder again."
        )
    _check_assets(folder, model)


def is_saved_model(folder: pathlib.Path) -> bool:
    """Tells whether there is a SavedModel's main file in a folder."""
    return any((folder / f"saved_model.{end}").exists() for end in ("pb", "pbtxt"))


def explain_folder(folder: pathlib.Path) -> str:
    """Says why a folder without a SavedModel is no source."""
    if (folder / "tfhub_module.pb").exists():
        return (
            f"{folder} is a TF1 Hub module (tfhub_module.pb), which TensorFlow 2 can "
            "only run frozen. Take the TF2 version of it: on tfhub.dev a higher "
            "version number, on Kaggle the framework tensorFlow2."
        )
    inside = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(inside[:8]) + (", …" if len(inside) > 8 else "")
    return f"There is no SavedModel in {folder}, only: {listed or '(nothing)'}. " + (
        _ACCEPTED
    )


def parse_saved_model(folder: pathlib.Path) -> saved_model_pb2.SavedModel:
    """Reads a SavedModel's main file: the one that TensorFlow would read.

    Raises:
        SourceError: There is none, or it is truncated or something else.
    """
    model = saved_model_pb2.SavedModel()
    try:
        if (folder / "tfhub_module.pb").exists():
            raise SourceError(explain_folder(folder))
        if (folder / "saved_model.pb").exists():
            model.ParseFromString((folder / "saved_model.pb").read_bytes())
        elif (folder / "saved_model.pbtxt").exists():
            text_format.Parse((folder / "saved_model.pbtxt").read_text("utf-8"), model)
        else:
            raise SourceError(explain_folder(folder))
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise SourceError(_truncated(folder)) from error
    if not model.meta_graphs:
        raise SourceError(_truncated(folder))
    return model


def _truncated(folder: pathlib.Path) -> str:
    return (
        f"The saved_model.pb in {folder} is truncated or is not a SavedModel. "
        "Fetch or copy the whole folder again."
    )


def _has_variables(model: saved_model_pb2.SavedModel) -> bool:
    graph = model.meta_graphs[0]
    return "variables" in graph.collection_def or any(
        node.WhichOneof("kind") == "variable" for node in graph.object_graph_def.nodes
    )


def _check_shards(folder: pathlib.Path, prefix: pathlib.Path) -> None:
    shards = sorted(prefix.parent.glob(f"{prefix.name}.data-*-of-*"))
    counts = {re.sub(".*-of-", "", shard.name) for shard in shards}
    if len(counts) != 1 or len(shards) != int(next(iter(counts))):
        found = ", ".join(shard.name for shard in shards) or "none"
        raise SourceError(
            f"Variable files are missing from {prefix.parent}; of "
            f"variables.data-…-of-… there are: {found}. "
            "Fetch or copy the whole folder again."
        )


def _check_tensors(folder: pathlib.Path, prefix: pathlib.Path) -> None:
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # Each kind of damage makes TensorFlow's reader raise another one of these.
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise SourceError(
            f"The variables of the SavedModel in {folder} are damaged ({error}). "
            "Fetch or copy the whole folder again."
        ) from error


def _check_assets(folder: pathlib.Path, model: saved_model_pb2.SavedModel) -> None:
    for asset in model.meta_graphs[0].asset_file_def:
        try:
            place_inside(folder / "assets", asset.filename)
        except UnsafeArchive as error:
            raise SourceError(
                f"The SavedModel in {folder} wants a file that is not its own: "
                f"{error}. It would be read as soon as it is loaded, so it is refused."
            ) from error
        if not (folder / "assets" / asset.filename).exists():
            raise SourceError(
                f"The SavedModel in {folder} lacks its file assets/{asset.filename}. "
                "Fetch or copy the whole folder again."
            )
