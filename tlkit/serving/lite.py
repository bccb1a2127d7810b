"""Writes a smaller LiteRT model, unless it loses too much accuracy.

LiteRT is the new name of TensorFlow Lite; the file format is the same. The model is
converted without its preprocessing: pixels or token ids in, scores out.
"""

import dataclasses
import importlib.util
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ..errors import ExportError, import_extra
from ..files import atomic_file
from ..models import facts_of, preprocessing, task_of
from .export_examples import evenly_spaced

Precision = Literal["float16", "int8"]

_MAX_CALIBRATION_EXAMPLES = 100
_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class LiteReport:
    """The size of a LiteRT model, and its accuracy compared with the full model's.

    Attributes:
        path: The `.tflite` file.
        precision: `"float16"` or `"int8"`.
        bytes: Size of the file.
        rows: The number of held-out examples that were predicted.
        accuracy: The full model's accuracy, 0 to 1; `None` without labels.
        small_accuracy: The LiteRT model's accuracy; `None` without labels.
        agreement: The fraction of examples with the same label from both, 0 to 1.
        largest_difference: The largest difference of a score, 0 to 1.
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
        """The accuracy lost; without labels, the fraction of labels that changed."""
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
    path: pathlib.Path,
    precision: Precision,
    examples: Sequence[Any],
    labels: Sequence[int] | None = None,
    *,
    calibration: Sequence[Any] | None = None,
    limit: float = 0.01,
) -> LiteReport:
    """Writes a LiteRT model if its accuracy is close to the full model's.

    The file has one signature, for one example: `pixels` (float32 `[1, height, width,
    3]` in 0…255) or token ids (int32 `[1, length]` each of `input_word_ids`,
    `input_mask` and `input_type_ids`) in, `scores` (float32 `[1, labels]`) out.

    Args:
        model: A model that `tlkit` built.
        path: The file to write.
        precision: `"float16"` halves the weights. `"int8"` quarters them and computes
            in integers, with ranges calibrated on examples; inputs and scores stay
            float32. For text models only the weights are int8, since the attention mask
            of -1e9 leaves no resolution to the values that it is added to.
        examples: Held-out raw examples: encoded images, arrays of pixels or texts.
        labels: Their labels as indices.
        calibration: Raw examples to calibrate `"int8"` with. Default: 100 of
            `examples`, or half of them if that is less, which are then not predicted.
        limit: The largest accuracy that may be lost, 0 to 1; without labels, the
            largest fraction of examples whose predicted label may change.

    Raises:
        ExportError: The LiteRT model loses more than `limit`, or the model cannot be
            converted. Nothing is written then.
        ExtraError: No interpreter for LiteRT models is installed.
    """
    examples = list(examples)
    if precision != "int8" or not _has_int8_activations(model):
        calibration = []
    elif calibration is None:
        examples, labels, calibration = _split_calibration(examples, labels)
    if not examples:
        raise ExportError(
            "A LiteRT model is compared with the full one on held-out examples, and "
            "int8 is calibrated on some of them. Give at least two; a few hundred are "
            "better."
        )
    prepare = _preparation(model)
    function = _scores_function(model, next(prepare(examples)))
    calibrate = (lambda: prepare(calibration)) if len(calibration) else None
    content = _convert(model, function, precision, calibrate)
    run_lite = _runner(content)
    outputs = [(function(**x), run_lite(**x)) for x in prepare(examples)]
    full, small = (
        np.concatenate([pair[i]["scores"] for pair in outputs]) for i in (0, 1)
    )
    report = _report(path, precision, len(content), full, small, labels)
    if not report.accuracy_drop <= limit + 1e-9:
        raise ExportError(_accuracy_message(report, limit))
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return report


def _split_calibration(examples: list, labels: Sequence[int] | None):
    """Returns the examples to predict, their labels, and those to calibrate with."""
    count = min(_MAX_CALIBRATION_EXAMPLES, len(examples) // 2)
    indices = evenly_spaced(len(examples), count)
    rest = sorted(set(range(len(examples))) - set(indices)) if indices else []
    rest_labels = None if labels is None else [labels[i] for i in rest]
    return [examples[i] for i in rest], rest_labels, [examples[i] for i in indices]


def _has_int8_activations(model: keras.Model) -> bool:
    """Returns whether activations can be int8; an attention mask of -1e9 forbids it."""
    return facts_of(model).kind == "image"


def _preparation(model: keras.Model) -> Callable[[Sequence], Iterator[dict]]:
    """Returns a function that yields the named inputs of each raw example."""
    preprocess = preprocessing(model, fixed_length=True)
    if facts_of(model).kind not in ("image", "text") or (
        not isinstance(model.input, dict) and model.input.dtype == "string"
    ):
        raise ExportError(
            "A LiteRT model takes pixels or token ids. This model takes "
            f"{model.input}, which LiteRT has no ops for."
        )

    def prepare(examples: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
        for example in examples:
            inputs = preprocess.batch(tf.convert_to_tensor(example)[tf.newaxis])
            inputs = inputs if isinstance(inputs, dict) else {"pixels": inputs}
            yield {name: x.numpy() for name, x in inputs.items()}

    return prepare


def _scores_function(model: keras.Model, example: dict[str, np.ndarray]) -> Any:
    """Returns a concrete function from named inputs, shaped as `example`, to scores."""
    task, is_dict = task_of(model), isinstance(model.input, dict)

    def scores(**inputs):
        logits = model(inputs if is_dict else inputs["pixels"], training=False)
        return {"scores": task.answer(logits)["scores"]}

    specs = {
        name: tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in example.items()
    }
    return tf.function(scores, autograph=False).get_concrete_function(**specs)


def _convert(
    model: keras.Model,
    function: Any,
    precision: str,
    calibrate: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
) -> bytes:
    """Converts a concrete function of the model's variables to a LiteRT file's bytes.

    `calibrate` gives inputs to calibrate activations with. If it is `None`, int8
    applies to the weights only.
    """
    served = tf.Module(name="small")
    served.weights = [variable.value for variable in model.variables]
    served.function = function
    with tempfile.TemporaryDirectory(prefix="tlkit-lite-") as folder:
        try:
            tf.saved_model.save(served, folder, signatures={_SIGNATURE: function})
            with warnings.catch_warnings():  # tf.lite.Interpreter is deprecated
                warnings.simplefilter("ignore")
                return _converter(folder, precision, calibrate).convert()
        except Exception as error:  # errors have several types, one of them private
            raise ExportError(_conversion_message(precision, error)) from error


def _converter(folder: str, precision: str, calibrate: Any) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif calibrate is not None:
        converter.representative_dataset = calibrate
        int8_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = int8_ops
    return converter


def _conversion_message(precision: str, error: Exception) -> str:
    ops = sorted(set(re.findall(r"\btf\.[A-Z]\w*", str(error))))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".") if lines else type(error).__name__
    reason = f"LiteRT has no {', '.join(ops)}" if ops else first
    return (
        f"The model cannot be converted to {precision}: {reason}. Export it without "
        "lite=…"
    )


def _runner(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """Returns a function of named arrays that runs a LiteRT model."""
    has_extra = importlib.util.find_spec("ai_edge_litert") is not None
    if has_extra or not hasattr(tf.lite, "Interpreter"):
        module = "ai_edge_litert.interpreter"
        litert = import_extra(module, "lite", "running a LiteRT model")
        interpreter = litert.Interpreter(model_content=content)
    else:
        with warnings.catch_warnings():  # it is deprecated
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner(_SIGNATURE)


def _report(path, precision, size, full, small, labels) -> LiteReport:
    finite = np.isfinite(small).all(axis=1)  # NaN scores count as no label
    full_labels = full.argmax(axis=1)
    small_labels = np.where(finite, small.argmax(axis=1), -1)
    accuracies = [None, None]
    if labels is not None:
        predicted = (full_labels, small_labels)
        accuracies = [float(np.mean(x == np.asarray(labels))) for x in predicted]
    return LiteReport(
        path=path,
        precision=precision,
        bytes=size,
        rows=len(full),
        accuracy=accuracies[0],
        small_accuracy=accuracies[1],
        agreement=float(np.mean(full_labels == small_labels)),
        largest_difference=float(np.max(np.abs(full - small))),
    )


def _accuracy_message(report: LiteReport, limit: float) -> str:
    kind = "accuracy" if report.accuracy is not None else "the predicted labels"
    advice = "To write it, " if report.precision == "float16" else "Try float16, or "
    figures = str(report).split("\n", 1)[1].replace("\n", "; ")
    return (
        f"The {report.precision} model was not written, since it loses "
        f"{report.accuracy_drop:.2%} of {kind}, and accuracy_drop={limit:g} allows "
        f"{limit:.2%}: {figures}. {advice}allow more: accuracy_drop=…"
    )
