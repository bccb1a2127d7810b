"""Writes a model as a SavedModel that answers raw pictures or texts with labels."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

import keras
import tensorflow as tf

from ..encoders import find_encoder
from ..errors import ExportError
from ..models import task_of
from ..reports import Report
from .export_examples import MOST, Rows, rows_of
from .extra_files import write_facts, write_papers, write_requests
from .lite import Precision, check_precision, write_lite
from .parity_check import TOLERANCE, check_parity
from .signatures import served_module
from .versions import write_version

_TOP = 5
_MEASURED = 500  # examples, for a small model's accuracy


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    version: int | None = None,
    examples: tf.data.Dataset | Sequence | Rows | None = None,
    report: Report | None = None,
    top: int | None = None,
    check: bool = True,
    tolerance: float = TOLERANCE,
    lite: Precision | None = None,
    accuracy_drop: float = 0.01,
    verbose: int = 1,
) -> pathlib.Path:
    """Writes a model in TF Serving's form, with raw examples in and labels out.

    Signatures:

    * `serving_default` takes `image_bytes` (strings `[batch]`: encoded JPEG, PNG, GIF,
      BMP or WebP pictures of any size) or `text` (strings `[batch]`; for pairs
      `text_pair`, too), and gives `label` (string `[batch]`), `score` (float32
      `[batch]`), `scores` (float32 `[batch, labels]`), `labels` (string `[batch,
      labels]`), and `top_labels` and `top_scores` (`[batch, top]`, highest first).
      Where a picture cannot be decoded, `label` is `""` and scores are 0; the others
      of its batch are answered.
    * `embed` takes the same, and gives `embedding` (float32 `[batch, features]`): what
      the head gets; zeros for a picture that cannot be decoded.
    * `tensors` takes what the model itself takes: `pixels` (float32 `[batch, height,
      width, 3]` in 0…255) or token ids by name (int32 `[batch, length]`), and gives
      what `serving_default` gives.

    Nothing of `tlkit` is needed to load it; a text model needs TF Text's ops, which TF
    Serving has. Before the version appears, a process without `tlkit` loads it and is
    asked about `examples`: the labels must be those of `tlkit.predict`, and the scores
    within `tolerance`.

    In `assets.extra` ride `model_card.md`, `tlkit_export.json`, `report.json`,
    `tf_serving_warmup_requests`, which TF Serving sends itself at the start, and
    `batching.config` and `models.config` for `tensorflow_model_server`. With `lite`,
    also `model.tflite`, a small model for LiteRT that takes prepared inputs.

    Args:
        model: A model that `tlkit` built.
        directory: The model's folder, such as `"saved_models/flowers"`.
        version: Number of the version; the next free one if `None`.
        examples: Examples to check and to warm up with, best of the validation split:
            a split, or raw examples as `tlkit.predict` takes them. 32 from all over it
            are taken. If `None`, some are made up.
        report: What `tlkit.fit` returned, to ride along.
        top: How many labels `top_labels` gives; 5, or all of fewer, if `None`.
        check: Whether to compare the export's answers with the model's.
        tolerance: By how much a score may differ then.
        lite: `"float16"` or `"int8"`, to write a small model, too (of text models int8
            is for the weights only). It is compared with the full one on up to 500 of
            `examples`, which have to be given.
        accuracy_drop: The most accuracy that the small model may lose, 0 to 1; where
            `examples` have no labels, the largest share of them whose label changes.
        verbose: 0 for silence.

    Returns:
        The folder `<directory>/<version>`.

    Raises:
        ExportError: `tlkit` did not build the model, the version is there already, the
            folder cannot be written, the export does not answer as the model does, or
            the small model loses too much; nothing is left behind then.
        DataError: `examples` are not what the model takes.
        ExtraError: Nothing here runs LiteRT's files.

    Example:

    ```python
    path = tlkit.export(model, "saved_models/flowers", examples=splits.validation)
    served = tf.saved_model.load(path).signatures["serving_default"]
    answer = served(image_bytes=tf.constant([open("rose.jpg", "rb").read()]))
    print(answer["label"], answer["score"])
    ```
    """
    _check_model(model)
    rows = rows_of(model, examples, MOST if lite is None else _MEASURED)
    asked = rows.spread(MOST)
    if lite is not None:
        check_precision(lite)
        if rows.made:
            raise ExportError(
                "A small model is measured on held-out examples. Type: "
                f"export(…, lite={lite!r}, examples=splits.validation)"
            )
    served, functions = served_module(model, _top(top, task_of(model).outputs))
    directory = pathlib.Path(directory)
    name = directory.absolute().name

    def write(folder: pathlib.Path) -> None:
        _say(verbose, f"Writing {directory}")
        tf.saved_model.save(served, str(folder), signatures=functions)
        write_papers(folder, model, name, report)
        write_requests(folder, model, name, asked)
        parity = small = None
        if check:
            _say(verbose, f"Asking it about {len(asked)} examples in another process")
            parity = check_parity(model, folder, asked, tolerance)
            _say(verbose, str(parity))
        if lite is not None:
            _say(verbose, f"Making a small model of {lite}, and measuring it")
            path = folder / "assets.extra" / "model.tflite"
            small = write_lite(
                model, path, lite, rows.raws, rows.labels, limit=accuracy_drop
            )
            _say(verbose, str(small).replace(str(path), path.name))
        write_facts(folder, model, name, report, parity, small)

    return write_version(directory, version, write)


def _check_model(model: keras.Model) -> None:
    if task_of(model) is None or find_encoder(model) is None:
        raise ExportError(
            "tlkit.export writes models that tlkit built (tlkit.image_classifier, "
            f"text_classifier or build_model). Received: {model!r}. Write others with "
            "model.export(path)."
        )


def _top(top: int | None, labels: int) -> int:
    if top is None:
        return min(_TOP, labels)
    if not 1 <= top <= labels:
        raise ExportError(
            f"top must be from 1 to {labels}, the number of labels, or None. Received: "
            f"{top!r}."
        )
    return top


def _say(verbose: int, text: str) -> None:
    if verbose:
        print(text, file=sys.stderr, flush=True)
