"""Writes a model as a SavedModel that answers raw pictures or texts with labels."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import keras
import tensorflow as tf

from ..encoders import find_encoder
from ..errors import ExportError
from ..models import preprocessing, task_of
from .versions import write_version


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    version: int | None = None,
) -> pathlib.Path:
    """Writes a model in TF Serving's form, with raw examples in and labels out.

    The signature `serving_default` takes `image_bytes` (strings `[batch]`: encoded
    JPEG, PNG, GIF, BMP or WebP pictures of any size) or `text` (strings `[batch]`), and
    gives `label` (string `[batch]`), `score` (float32 `[batch]`), `scores` (float32
    `[batch, labels]`) and `labels` (string `[batch, labels]`). Nothing of `tlkit` is
    needed to load it; a text model needs TF Text's ops, which TF Serving has.

    Args:
        model: A model that `tlkit` built.
        directory: The model's folder, such as `"saved_models/flowers"`.
        version: Number of the version; the next free one if `None`.

    Returns:
        The folder `<directory>/<version>`.

    Raises:
        ExportError: `tlkit` did not build the model, the version is there already, or
            the folder cannot be written.

    Example:

    ```python
    path = tlkit.export(model, "saved_models/flowers")
    served = tf.saved_model.load(path).signatures["serving_default"]
    answer = served(image_bytes=tf.constant([open("rose.jpg", "rb").read()]))
    print(answer["label"], answer["score"])
    ```
    """
    served = _servable(model)

    def write(folder: pathlib.Path) -> None:
        signatures = {"serving_default": served.raw}
        tf.saved_model.save(served, str(folder), signatures=signatures)
        _write_notes(folder, model)

    return write_version(pathlib.Path(directory), version, write)


def _servable(model: keras.Model) -> tf.Module:
    """What is written: the signature's function, and the variables that it reads."""
    task, encoder = task_of(model), find_encoder(model)
    if task is None or encoder is None:
        raise ExportError(
            "tlkit.export writes models that tlkit built (tlkit.image_classifier, "
            f"text_classifier or build_model). Received: {model!r}. Write others with "
            "model.export(path)."
        )
    preprocess = preprocessing(model)
    kind = encoder.details.get("kind")
    name = {"image": "image_bytes", "text": "text"}.get(kind, "inputs")

    def raw(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return task.answer(model(preprocess.batch(examples), training=False))

    served = tf.Module(name="served")
    # Each variable once: Keras's own objects would bring every weight a second time.
    served.weights = [variable.value for variable in model.variables]
    served.owned = _owned(encoder, preprocess)
    names = [name]
    if encoder.details.get("pairs"):
        names, one = ["text", "text_pair"], raw
        raw = lambda text, text_pair: one(tf.stack([text, text_pair], axis=1))
    specs = [tf.TensorSpec((None,), tf.string, name=name) for name in names]
    served.raw = tf.function(raw, input_signature=specs)
    return served


def _owned(encoder, preprocess) -> list[Any]:
    """SavedModels whose tables and assets the signature needs."""
    network = getattr(encoder, "network", None)
    owners = [
        getattr(encoder, "module", None),
        getattr(network, "owner", None),
        getattr(preprocess, "module", None),
    ]
    return [owner for owner in owners if owner is not None]


def _write_notes(folder: pathlib.Path, model: keras.Model) -> None:
    """Facts for people and tools, in the folder that a server leaves alone."""
    encoder = find_encoder(model)
    notes = {
        "labels": list(task_of(model).labels),
        "encoder": encoder.details.get("name"),
        "kind": encoder.details.get("kind"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "tlkit_export.json").write_text(json.dumps(notes, indent=2))
