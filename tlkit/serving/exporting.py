"""Exports a model as a SavedModel that takes raw images or texts and returns labels."""

import os
import pathlib
from collections.abc import Sequence
from typing import get_args

import keras
import tensorflow as tf

from ..encoders import find_encoder
from ..errors import ExportError
from ..files import user_path
from ..models import task_of
from ..progress import print_line
from ..reports import Report
from .export_examples import MAX_EXAMPLES, ExportExamples, take_examples
from .extra_files import write_description, write_server_files, write_warm_up_requests
from .lite import Precision, write_lite
from .parity_check import TOLERANCE, check_parity
from .signatures import served_module
from .versions import write_version

_DEFAULT_TOP = 5
_MAX_LITE_EXAMPLES = 500  # to measure the accuracy of a LiteRT model


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    version: int | None = None,
    examples: tf.data.Dataset | Sequence | ExportExamples | None = None,
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
      BMP or WebP images of any size) or `text` (strings `[batch]`; for pairs
      `text_pair`, too). It returns `label` (string `[batch]`), `score` (float32
      `[batch]`), `scores` (float32 `[batch, labels]`), `labels` (string `[batch,
      labels]`), and `top_labels` and `top_scores` (`[batch, top]`, highest first).
      An image that cannot be decoded gets the label `""` and scores of 0; the others
      of its batch are not affected.
    * `embed` takes the same inputs, and returns `embedding` (float32 `[batch,
      features]`), the input of the head; zeros for an image that cannot be decoded.
    * `tensors` takes the model's own inputs: `pixels` (float32 `[batch, height, width,
      3]` in 0…255) or token ids by name (int32 `[batch, length]`). It returns the same
      as `serving_default`.

    The export loads without `tlkit`. A text model needs TF Text's ops, which TF Serving
    has. Before the version is published, a separate process that does not import
    `tlkit` loads it and predicts `examples`. The labels must equal those of
    `tlkit.predict`, and the scores must be within `tolerance`.

    `assets.extra` contains `model_card.md`, `tlkit_export.json`, `report.json`,
    `tf_serving_warmup_requests`, which TF Serving runs when it starts, and
    `batching.config` and `models.config` for `tensorflow_model_server`. With `lite`, it
    also contains `model.tflite`, a smaller LiteRT model that takes preprocessed inputs.

    Args:
        model: A model that `tlkit` built.
        directory: The model's folder, such as `"saved_models/flowers"`.
        version: Number of the version; the next free one if `None`.
        examples: Examples for the check and the warm-up, best of the validation split:
            a split, or raw examples as `tlkit.predict` takes them. 32 evenly spaced
            ones are used. If `None`, synthetic examples are used.
        report: The result of `tlkit.fit`, to add to `assets.extra`.
        top: The number of labels in `top_labels`; if `None`, 5 or all if fewer.
        check: Whether to compare the export's predictions with the model's.
        tolerance: The largest allowed difference of a score, 0 to 1.
        lite: `"float16"` or `"int8"`, to write a LiteRT model too (for text models,
            int8 applies to the weights only). It is compared with the full model on up
            to 500 of `examples`, which are then required.
        accuracy_drop: The largest accuracy that the LiteRT model may lose, 0 to 1;
            if `examples` have no labels, the largest fraction of them whose predicted
            label may change.
        verbose: 0 for silence.

    Returns:
        The folder `<directory>/<version>`.

    Raises:
        ExportError: `tlkit` did not build the model, the version exists, the folder
            cannot be written, the export's predictions differ from the model's, or the
            LiteRT model loses too much accuracy. Nothing is written then.
        DataError: `examples` do not fit the model.
        ExtraError: No interpreter for LiteRT models is installed.

    Example:

    ```python
    path = tlkit.export(model, "saved_models/flowers", examples=splits.validation)
    served = tf.saved_model.load(path).signatures["serving_default"]
    response = served(image_bytes=tf.constant([open("rose.jpg", "rb").read()]))
    sorted(response)  # ["label", "labels", "score", "scores", "top_labels", …]
    ```
    """
    _check_model(model)
    count = MAX_EXAMPLES if lite is None else _MAX_LITE_EXAMPLES
    taken = take_examples(model, examples, count)
    sample = taken.sample(MAX_EXAMPLES)
    if lite is not None:
        precisions = get_args(Precision)
        if lite not in precisions:
            raise ExportError(
                f"lite must be one of {', '.join(precisions)}. Received: {lite!r}."
            )
        if taken.synthetic:
            raise ExportError(
                "A LiteRT model is compared with the full one on held-out examples. "
                f"Type: export(…, lite={lite!r}, examples=splits.validation)"
            )
    served, functions = served_module(model, _top(top, task_of(model).outputs))
    directory = user_path(directory)
    name = directory.absolute().name

    def write(folder: pathlib.Path) -> None:
        _print(verbose, f"Writing {directory}")
        tf.saved_model.save(served, str(folder), signatures=functions)
        write_server_files(folder, name, report)
        write_warm_up_requests(folder, model, name, sample)
        parity = lite_report = None
        if check:
            _print(verbose, f"Predicting {len(sample)} examples in another process")
            parity = check_parity(model, folder, sample, tolerance)
            _print(verbose, str(parity))
        if lite is not None:
            _print(verbose, f"Writing and measuring a LiteRT model of {lite}")
            path = folder / "assets.extra" / "model.tflite"
            lite_report = write_lite(
                model, path, lite, taken.raws, taken.labels, limit=accuracy_drop
            )
            _print(verbose, str(lite_report).replace(str(path), path.name))
        write_description(folder, model, name, report, parity, lite_report)

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
        return min(_DEFAULT_TOP, labels)
    if not 1 <= top <= labels:
        raise ExportError(
            f"top must be from 1 to {labels}, the number of labels, or None. Received: "
            f"{top!r}."
        )
    return top


def _print(verbose: int, text: str) -> None:
    if verbose:
        print_line(text)
