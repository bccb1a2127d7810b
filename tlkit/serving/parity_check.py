"""Compares an export's predictions with its model's, in a process without `tlkit`."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from ..errors import ExportError
from ..models import preprocessing, task_of
from ..training import predict
from .export_examples import ExportExamples, example_kind, signature_inputs
from .signatures import RAW, TENSORS, tensor_specs

TOLERANCE = 1e-5

_SCRIPT = pathlib.Path(__file__).with_name("standalone_predictions.py")
# On the CPU, since the training process may have reserved all memory of the GPUs.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
_SHOWN_MISMATCHES = 3

Requests = dict[str, dict[str, np.ndarray | list[bytes]]]
Responses = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Parity:
    """The result of comparing an export's predictions with its model's.

    Attributes:
        examples: The number of examples compared.
        made: Whether they were synthetic.
        tolerance: The largest allowed difference of a score.
        largest_difference: The largest difference of a score.
        seconds: The time taken.
    """

    examples: int
    made: bool
    tolerance: float
    largest_difference: float
    seconds: float

    def __str__(self) -> str:
        kind = "synthetic" if self.made else "given"
        return (
            f"{self.examples} {kind} examples: the same labels, scores within "
            f"{self.largest_difference:.1e} (at most {self.tolerance:g} allowed)"
        )


def check_parity(
    model: keras.Model,
    folder: pathlib.Path,
    examples: ExportExamples,
    tolerance: float = TOLERANCE,
) -> Parity:
    """Compares the predictions of the export in `folder` with those of `tlkit.predict`.

    Raises:
        ExportError: A label differs, a score differs by more than `tolerance`, or the
            export cannot be loaded and called without `tlkit`.
    """
    start = time.monotonic()
    # On the CPU, as in the other process: another device rounds differently.
    with tf.device("/CPU:0"):
        scores = _model_scores(model, examples)
        requests = _requests(model, examples)
    labels = np.array(task_of(model).labels)
    largest = 0.0
    for signature, response in predict_standalone(folder, requests).items():
        _compare(signature, scores, labels, response, tolerance)
        difference = np.max(np.abs(response["scores"] - scores))
        largest = max(largest, float(difference))
    seconds = time.monotonic() - start
    return Parity(len(examples), examples.synthetic, tolerance, largest, seconds)


def predict_standalone(folder: pathlib.Path, requests: Requests) -> Responses:
    """Calls an export's signatures in a process that does not import `tlkit`.

    Args:
        folder: The export.
        requests: For each signature, the inputs by name: arrays of numbers, or lists of
            bytes.

    Returns:
        For each signature, the outputs by name. Strings are UTF-8 bytes.

    Raises:
        ExportError: The process failed.
    """
    with tempfile.TemporaryDirectory(prefix="tlkit-parity-") as temporary:
        requests_path = pathlib.Path(temporary, "requests.npz")
        responses_path = pathlib.Path(temporary, "responses.npz")
        np.savez(requests_path, **_packed(requests))
        # -P: otherwise, modules in the script's folder could hide those of packages.
        command = [sys.executable, "-P", _SCRIPT, folder.absolute()]
        done = subprocess.run(
            [*command, requests_path, responses_path],
            cwd=temporary,
            capture_output=True,
            text=True,
            env=os.environ | _ENVIRONMENT,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["there was no message"]
            raise ExportError(
                "The export cannot be served: a process without tlkit that loaded and "
                f"called it ended with status {done.returncode}: {lines[-1]} Nothing "
                "was written. To write it unchecked: export(…, check=False)"
            )
        responses: Responses = {}
        with np.load(responses_path) as arrays:
            for key in arrays:
                signature, name = key.split("|")
                responses.setdefault(signature, {})[name] = arrays[key]
        return responses


def _model_scores(model: keras.Model, examples: ExportExamples) -> np.ndarray:
    predictions = predict(model, list(examples.raws), batch_size=len(examples))
    labels = task_of(model).labels
    rows = [[row.scores[label] for label in labels] for row in predictions]
    return np.array(rows, np.float32)


def _requests(model: keras.Model, examples: ExportExamples) -> Requests:
    requests: Requests = {RAW: signature_inputs(model, examples.raws)}
    if example_kind(model) != "numbers":
        inputs = preprocessing(model).batch(tf.constant(list(examples.raws)))
        if not isinstance(inputs, dict):
            inputs = dict.fromkeys(tensor_specs(model), inputs)
        requests[TENSORS] = {name: inputs[name].numpy() for name in tensor_specs(model)}
    return requests


def _packed(requests: Requests) -> dict[str, np.ndarray]:
    """Returns the requests as arrays, named as the script reads them."""
    packed = {}
    for signature, inputs in requests.items():
        for name, values in inputs.items():
            key = f"{signature}|{name}"
            if isinstance(values, np.ndarray):
                packed[key] = values
                continue
            packed[f"{key}|bytes"] = np.frombuffer(b"".join(values), np.uint8)
            packed[f"{key}|lengths"] = np.array([len(value) for value in values])
    return packed


def _compare(
    signature: str,
    scores: np.ndarray,
    labels: np.ndarray,
    response: dict[str, np.ndarray],
    tolerance: float,
) -> None:
    served = response["scores"]
    served_labels = np.char.decode(response["label"], "utf-8")
    expected = labels[scores.argmax(axis=1)]
    # "not <=" instead of ">", which is false for NaN.
    differs = ~(np.max(np.abs(served - scores), axis=1, initial=0.0) <= tolerance)
    mismatches = np.flatnonzero((served_labels != expected) | differs)
    if not len(mismatches):
        return
    lines = [
        f"  example {i}: {served_labels[i]!r} {served[i].max():.6f}, and the model "
        f"{expected[i]!r} {scores[i].max():.6f}"
        for i in mismatches[:_SHOWN_MISMATCHES]
    ]
    raise ExportError(
        f"The predictions of the export's signature {signature} differ from the "
        f"model's in {len(mismatches)} of {len(scores)} examples:\n"
        + "\n".join(lines)
        + f"\nNothing was written. Scores may differ by {tolerance:g}; to allow more: "
        "export(…, tolerance=…), to write it unchecked: export(…, check=False)"
    )
