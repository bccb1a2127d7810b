"""Small models: one LiteRT file, with the accuracy that it costs, and a limit to that.

LiteRT is what TensorFlow Lite is called now; the files are the same. What is converted
is the model without its preprocessing: pixels or token ids in, scores out.

Converts to LiteRT's files, and runs them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ..encoders import find_encoder
from ..errors import ExportError, import_extra
from ..models import preprocessors as preprocessing
from ..models import task_of
from .export_examples import spread

Precision = Literal["float16", "int8"]
PRECISIONS = ("float16", "int8")

_CALIBRATION_ROWS = 100


@dataclasses.dataclass(frozen=True)
class LiteReport:
    """What a small model is, and what it loses.

    Attributes:
        path: The `.tflite` file.
        precision: `"float16"` or `"int8"`.
        bytes: Size of the file.
        rows: On how many held-out examples it was measured.
        accuracy: Share of these that the full model gets right, 0 to 1; `None` without
            labels.
        small_accuracy: The same of the small model.
        agreement: Share of these to which both give the same label, 0 to 1.
        largest_difference: The largest difference of any score, 0 to 1.
    """

    path: pathlib.Path
    precision: str
    bytes: int
    rows: int
    accuracy: float | None
    small_accuracy: float | None
    agreement: float
    largest_difference: float

    @property
    def megabytes(self) -> float:
        """Size of the file in megabytes of a million bytes."""
        return self.bytes / 1e6

    @property
    def accuracy_drop(self) -> float:
        """The accuracy lost; without labels, the share of labels that changed."""
        if self.accuracy is None or self.small_accuracy is None:
            return 1.0 - self.agreement
        return self.accuracy - self.small_accuracy

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.precision}, {self.megabytes:.2f} MB"]
        if self.accuracy is not None:
            lines.append(
                f"accuracy {self.accuracy:.4f}, small {self.small_accuracy:.4f}, on "
                f"{self.rows} examples"
            )
        lines.append(
            f"the same label for {self.agreement:.2%} of {self.rows} examples, scores "
            f"differ by {self.largest_difference:.4f} at most"
        )
        return "\n".join(lines)


def write_lite(
    model: keras.Model,
    path: str | os.PathLike,
    precision: Precision,
    examples: Sequence[Any],
    labels: Sequence[int | str] | None = None,
    *,
    calibration: Sequence[Any] | None = None,
    limit: float = 0.01,
) -> LiteReport:
    """Writes a small model for LiteRT, if it is about as good as the full one.

    The file has one signature, for one example: `pixels` (float32 `[1, height, width,
    3]` in 0…255) or the token ids (int32 `[1, length]` each of `input_word_ids`,
    `input_mask` and `input_type_ids`) in, `scores` (float32 `[1, labels]`) out.

    Args:
        model: A model that `tlkit` built.
        path: The file to write, such as `"flowers.tflite"`.
        precision: `"float16"` halves the weights. `"int8"` quarters them and computes
            in whole numbers, whose ranges are learned from examples; inputs and scores
            stay float32. Of text models only the weights are int8, since the mask of
            an attention leaves no range to anything that it is added to.
        examples: Held-out raw examples, which `model` was not trained on: encoded
            pictures, arrays of pixels or texts.
        labels: Their labels, as names or as numbers.
        calibration: Raw examples from which `"int8"` learns ranges. Default: the first
            100 of `examples`, or half of them if that is less, which then are not
            measured.
        limit: The most accuracy that may be lost, 0 to 1; without labels, the largest
            share of examples whose label may change.

    Returns:
        What was written, and what it loses.

    Raises:
        ExportError: The small model loses more than `limit`, or the model cannot be
            converted. Nothing is written then.
        ExtraError: Nothing here runs LiteRT's files.
    """
    given = _checked(model, precision, examples, labels, calibration)
    examples, labels, calibration = given
    prepare = _preparation(model)
    function = _scores_of(model, next(prepare(examples)))
    learned = (lambda: prepare(calibration)) if calibration else None
    content = convert(model, function, precision, learned)
    small = runner(content)
    rows = [(function(**x), small(**x)) for x in prepare(examples)]
    scores = [np.concatenate([row[i]["scores"] for row in rows]) for i in (0, 1)]
    path = pathlib.Path(path)
    report = _report(path, precision, len(content), *scores, labels)
    if not report.accuracy_drop <= limit + 1e-9:
        raise ExportError(_refusal(report, limit))
    _write(path, content)
    return report


# === What comes in ===


def check_precision(precision: str) -> None:
    """Raises an `ExportError` unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ExportError(
            f"The precision must be one of {', '.join(PRECISIONS)}. Received: "
            f"{precision!r}."
        )


def _checked(model, precision, examples, labels, calibration):
    """The held-out examples, their labels as numbers, and those to calibrate with."""
    check_precision(precision)
    task = task_of(model)
    if task is None or find_encoder(model) is None:
        raise ExportError(
            "A small model is made of one that tlkit built (tlkit.image_classifier, "
            f"text_classifier or build_model). Received: {model!r}."
        )
    examples = list(examples)
    if labels is not None:
        labels = [x if isinstance(x, str) else int(x) for x in labels]
        labels = [task.label_index(x) if isinstance(x, str) else x for x in labels]
        if len(labels) != len(examples):
            raise ExportError(
                f"Each example needs its label. Received: {len(examples)} examples and "
                f"{len(labels)} labels."
            )
    ranges = precision == "int8" and _has_ranges(model)
    if calibration is None and ranges:
        count = min(_CALIBRATION_ROWS, len(examples) // 2)
        learned = set(spread(len(examples), count))
        calibration = [examples[i] for i in sorted(learned)]
        left = [i for i in range(len(examples)) if i not in learned]
        examples = [examples[i] for i in left]
        labels = None if labels is None else [labels[i] for i in left]
    calibration = list(calibration) if ranges else []
    if not examples or (ranges and not calibration):
        raise ExportError(
            "A small model is measured on held-out examples, and int8 learns ranges "
            "from some of them. Give two at least; a few hundred are good."
        )
    return examples, labels, calibration


def _has_ranges(model: keras.Model) -> bool:
    """Whether int8 is for more than weights: not where attention has a mask of -1e9."""
    return find_encoder(model).details.get("kind") == "image"


def _preparation(model: keras.Model) -> Callable[[Sequence], Iterator[dict]]:
    """What turns raw examples into the inputs of one example at a time, by name."""
    preprocess = preprocessing(model, fixed_length=True)
    if find_encoder(model).details.get("kind") not in ("image", "text") or (
        not isinstance(model.input, dict) and model.input.dtype == "string"
    ):
        raise ExportError(
            "A small model takes pixels or token ids. This one takes "
            f"{model.input}, which LiteRT has no ops for."
        )

    def prepare(examples: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
        for example in examples:
            inputs = preprocess.batch(tf.convert_to_tensor(example)[tf.newaxis])
            inputs = inputs if isinstance(inputs, dict) else {"pixels": inputs}
            yield {name: x.numpy() for name, x in inputs.items()}

    return prepare


def _scores_of(model: keras.Model, example: dict[str, np.ndarray]) -> Any:
    """A function with one signature: the inputs by their names in, scores out."""
    task, whole = task_of(model), isinstance(model.input, dict)

    def scores(**inputs):
        logits = model(inputs if whole else inputs["pixels"], training=False)
        return {"scores": task.answer(logits)["scores"]}

    specs = {
        name: tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in example.items()
    }
    return tf.function(scores, autograph=False).get_concrete_function(**specs)


# === What it loses ===


def _report(path, precision, size, full, small, labels) -> LiteReport:
    finite = np.isfinite(small).all(axis=1)  # what is no number is no answer
    found, ours = full.argmax(axis=1), np.where(finite, small.argmax(axis=1), -1)
    right = [None, None]
    if labels is not None:
        right = [float(np.mean(x == np.asarray(labels))) for x in (found, ours)]
    return LiteReport(
        path=path,
        precision=precision,
        bytes=size,
        rows=len(full),
        accuracy=right[0],
        small_accuracy=right[1],
        agreement=float(np.mean(found == ours)),
        largest_difference=float(np.max(np.abs(full - small))),
    )


def _refusal(report: LiteReport, limit: float) -> str:
    kind = "accuracy" if report.accuracy is not None else "the labels it gives"
    other = "To have it, " if report.precision == "float16" else "Try float16, or "
    figures = str(report).split("\n", 1)[1].replace("\n", "; ")
    return (
        f"The {report.precision} model was not written, since it loses "
        f"{report.accuracy_drop:.2%} of {kind}, and accuracy_drop={limit:g} allows "
        f"{limit:.2%}: {figures}. {other}allow more: accuracy_drop=…"
    )


def _write(path: pathlib.Path, content: bytes) -> None:
    beside = path.with_name(f".writing-{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written: {error.strerror}. Give a place in a folder "
            "that exists or can be made."
        ) from error
    finally:
        beside.unlink(missing_ok=True)


# === Lite files ===


_SIGNATURE = "serving_default"


def convert(
    model: keras.Model,
    function: Any,
    precision: str,
    calibration: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
) -> bytes:
    """Converts a function of a model to a LiteRT file.

    Args:
        model: The model whose variables the function reads.
        function: A concrete function with named inputs and a dict of outputs.
        precision: `"float16"` or `"int8"`.
        calibration: Gives inputs from which int8 learns the ranges of activations; if
            `None`, only the weights are int8.

    Returns:
        What is in the file. It has one signature, `serving_default`.

    Raises:
        ExportError: It cannot be converted; says which op is to blame.
    """
    served = tf.Module(name="small")
    served.weights = [variable.value for variable in model.variables]
    served.function = function
    with tempfile.TemporaryDirectory(prefix="tlkit-lite-") as folder:
        try:
            tf.saved_model.save(served, folder, signatures={_SIGNATURE: function})
            with warnings.catch_warnings():  # its own interpreter says that it will go
                warnings.simplefilter("ignore")
                return _converter(folder, precision, calibration).convert()
        except Exception as error:  # of several kinds, one of them private
            raise ExportError(_not_converted(precision, error)) from error


def _converter(folder: str, precision: str, calibration: Any) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif calibration is not None:
        converter.representative_dataset = calibration
        only = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [only]
    return converter


def _not_converted(precision: str, error: Exception) -> str:
    ops = sorted(set(re.findall(r"\btf\.[A-Z]\w*", str(error))))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".") if lines else type(error).__name__
    why = f"LiteRT has no {', '.join(ops)}" if ops else first
    return (
        f"The model cannot be converted to {precision}: {why}. Export it without lite=…"
    )


def runner(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """What runs a LiteRT file: arrays by the names of inputs in, a dict of arrays out.

    Raises:
        ExtraError: Nothing here runs such files.
    """
    there = importlib.util.find_spec("ai_edge_litert") is not None
    if there or not hasattr(tf.lite, "Interpreter"):
        module = "ai_edge_litert.interpreter"
        lite = import_extra(module, "lite", "running a small model")
        interpreter = lite.Interpreter(model_content=content)
    else:
        with warnings.catch_warnings():  # it says that it will go, and when
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner(_SIGNATURE)
