"""Checks that a folder is a complete SavedModel, before TensorFlow loads it."""

import pathlib
import re

import tensorflow as tf
from google.protobuf import message, text_format
from tensorflow.core.protobuf import saved_model_pb2

from ...errors import SourceError
from .archives import UnsafeArchive, path_inside

_ACCEPTED = (
    "A source is a folder with a saved_model.pb (as written by TF Hub and "
    "tf.saved_model.save), a folder <name>/<version>/ of those, or a "
    "Keras or Hugging Face preset with a config.json."
)
_FETCH_AGAIN = "Fetch or copy the whole folder again."


def check_saved_model(folder: pathlib.Path, *, full: bool) -> None:
    """Checks that a folder is a complete SavedModel.

    Args:
        folder: The folder.
        full: Whether to also read every variable, which verifies its checksum.

    Raises:
        SourceError: It is not a SavedModel, or a file is missing or damaged.
    """
    model = parse_saved_model(folder)
    prefix = folder / "variables" / "variables"
    if prefix.with_suffix(".index").exists():
        _check_shards(prefix)
        if full:
            _check_tensors(folder, prefix)
    elif _has_variables(model):
        raise SourceError(
            f"The SavedModel in {folder} has variables, but variables/variables.index "
            f"is missing. {_FETCH_AGAIN}"
        )
    _check_assets(folder, model)


def is_saved_model(folder: pathlib.Path) -> bool:
    """Returns whether a folder holds the main file of a SavedModel."""
    return any((folder / f"saved_model.{end}").exists() for end in ("pb", "pbtxt"))


def missing_model_message(folder: pathlib.Path) -> str:
    """Returns the error message for a folder without a TF2 SavedModel."""
    if (folder / "tfhub_module.pb").exists():
        return (
            f"{folder} is a TF1 Hub module (tfhub_module.pb), which TensorFlow 2 can "
            "only run frozen. Use its TF2 version: on tfhub.dev a higher version "
            "number, on Kaggle the framework tensorFlow2."
        )
    names = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    contents = listed or "(nothing)"
    return f"There is no SavedModel in {folder}, only: {contents}. {_ACCEPTED}"


def parse_saved_model(folder: pathlib.Path) -> saved_model_pb2.SavedModel:
    """Parses the file `saved_model.pb`, or else `saved_model.pbtxt`, of a SavedModel.

    Raises:
        SourceError: The file is missing, truncated or not a SavedModel.
    """
    model = saved_model_pb2.SavedModel()
    try:
        if (folder / "tfhub_module.pb").exists():
            raise SourceError(missing_model_message(folder))
        if (folder / "saved_model.pb").exists():
            model.ParseFromString((folder / "saved_model.pb").read_bytes())
        elif (folder / "saved_model.pbtxt").exists():
            text_format.Parse((folder / "saved_model.pbtxt").read_text("utf-8"), model)
        else:
            raise SourceError(missing_model_message(folder))
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise SourceError(_truncated_message(folder)) from error
    if not model.meta_graphs:
        raise SourceError(_truncated_message(folder))
    return model


def _truncated_message(folder: pathlib.Path) -> str:
    return (
        f"The saved_model.pb in {folder} is truncated or is not a SavedModel. "
        f"{_FETCH_AGAIN}"
    )


def _has_variables(model: saved_model_pb2.SavedModel) -> bool:
    graph = model.meta_graphs[0]
    return "variables" in graph.collection_def or any(
        node.WhichOneof("kind") == "variable" for node in graph.object_graph_def.nodes
    )


def _check_shards(prefix: pathlib.Path) -> None:
    shards = sorted(prefix.parent.glob(f"{prefix.name}.data-*-of-*"))
    counts = {re.sub(".*-of-", "", shard.name) for shard in shards}
    if len(counts) != 1 or len(shards) != int(next(iter(counts))):
        names = ", ".join(shard.name for shard in shards) or "none"
        raise SourceError(
            f"Variable files are missing from {prefix.parent}; of "
            f"variables.data-…-of-… there are: {names}. {_FETCH_AGAIN}"
        )


def _check_tensors(folder: pathlib.Path, prefix: pathlib.Path) -> None:
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    # TensorFlow's reader raises any of these, depending on the damage.
    except (tf.errors.OpError, RuntimeError, ValueError, LookupError) as error:
        raise SourceError(
            f"The variables of the SavedModel in {folder} are damaged ({error}). "
            f"{_FETCH_AGAIN}"
        ) from error


def _check_assets(folder: pathlib.Path, model: saved_model_pb2.SavedModel) -> None:
    for asset in model.meta_graphs[0].asset_file_def:
        try:
            path_inside(folder / "assets", asset.filename)
        except UnsafeArchive as error:
            raise SourceError(
                f"The SavedModel in {folder} refers to a file outside of its folder: "
                f"{error}. Loading the model would read that file, so it is rejected."
            ) from error
        if not (folder / "assets" / asset.filename).exists():
            raise SourceError(
                f"The SavedModel in {folder} lacks its file assets/{asset.filename}. "
                f"{_FETCH_AGAIN}"
            )
