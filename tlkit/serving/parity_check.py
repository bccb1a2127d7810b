"""Whether an export answers as its model does, asked in a process without `tlkit`."""

from __future__ import annotations

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
from ..models import preprocessors as preprocessing
from ..models import task_of
from ..training import predict
from .export_examples import Rows, columns, kind_of
from .signatures import RAW, TENSORS, tensor_specs

TOLERANCE = 1e-5

_SCRIPT = pathlib.Path(__file__).with_name("plain_answers.py")
# Devices belong to the process that trains.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
_SHOWN = 3

Requests = dict[str, dict[str, np.ndarray | list[bytes]]]


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far an export's answers are from its model's.

    Attributes:
        examples: How many examples were asked about.
        made: Whether they were made up.
        tolerance: By how much a score may differ.
        largest_difference: By how much one differs at most.
        seconds: How long it took.
    """

    examples: int
    made: bool
    tolerance: float
    largest_difference: float
    seconds: float

    def __str__(self) -> str:
        kind = "made-up" if self.made else "given"
        return (
            f"{self.examples} {kind} examples: the same labels, scores within "
            f"{self.largest_difference:.1e} (at most {self.tolerance:g} allowed)"
        )


def check_parity(
    model: keras.Model, folder: pathlib.Path, rows: Rows, tolerance: float = TOLERANCE
) -> Parity:
    """Compares an export's answers with those of `tlkit.predict`.

    Args:
        model: The model.
        folder: The export.
        rows: Examples to ask about.
        tolerance: By how much a score may differ.

    Returns:
        How far they are apart.

    Raises:
        ExportError: A label is another, a score differs by more, or the export cannot
            be loaded or asked without `tlkit`.
    """
    begin = time.monotonic()
    # As the other process: on another device the last digits differ by more.
    with tf.device("/CPU:0"):
        scores = _scores(model, rows)
        asked = _requests(model, rows)
    labels = np.array(task_of(model).labels)
    largest = 0.0
    for signature, answer in ask(folder, asked).items():
        found, said = answer["scores"], np.char.decode(answer["label"], "utf-8")
        _compare(signature, scores, labels, found, said, tolerance)
        largest = max(largest, float(np.max(np.abs(found - scores))))
    seconds = time.monotonic() - begin
    return Parity(len(rows), rows.made, tolerance, largest, seconds)


def _scores(model: keras.Model, rows: Rows) -> np.ndarray:
    predictions = predict(model, list(rows.raws), batch_size=len(rows))
    labels = task_of(model).labels
    return np.array(
        [[found.scores[label] for label in labels] for found in predictions], np.float32
    )


def _requests(model: keras.Model, rows: Rows) -> Requests:
    requests: Requests = {RAW: columns(model, rows.raws)}
    if kind_of(model) != "numbers":
        inputs = preprocessing(model).batch(tf.constant(list(rows.raws)))
        if not isinstance(inputs, dict):
            inputs = dict.fromkeys(tensor_specs(model), inputs)
        requests[TENSORS] = {name: inputs[name].numpy() for name in tensor_specs(model)}
    return requests


def ask(folder: pathlib.Path, requests: Requests) -> dict[str, dict[str, np.ndarray]]:
    """Has a process without `tlkit` load an export and ask its signatures.

    Args:
        folder: The export.
        requests: The inputs by name, by the name of the signature: arrays of numbers,
            or lists of bytes.

    Returns:
        The outputs by name, by the name of the signature; strings are encoded.

    Raises:
        ExportError: The process failed.
    """
    with tempfile.TemporaryDirectory(prefix="tlkit-parity-") as place:
        asked, answers = (pathlib.Path(place) / f"{n}.npz" for n in ("ask", "say"))
        np.savez(asked, **_packed(requests))
        done = subprocess.run(
            # -P: the script's own folder has modules whose names others may have.
            [sys.executable, "-P", _SCRIPT, folder.absolute(), asked, answers],
            cwd=place,
            capture_output=True,
            text=True,
            env=os.environ | _ENVIRONMENT,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ExportError(
                "The export cannot be served: a process without tlkit that loads it "
                f"and asks it ended with {done.returncode}: {lines[-1]} Nothing was "
                "written. To write it all the same: export(…, check=False)"
            )
        found: dict[str, dict[str, np.ndarray]] = {}
        with np.load(answers) as arrays:
            for key in arrays:
                signature, name = key.split("|")
                found.setdefault(signature, {})[name] = arrays[key]
        return found


def _packed(requests: Requests) -> dict[str, np.ndarray]:
    """The requests as arrays, as the script wants them."""
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
    found: np.ndarray,
    said: np.ndarray,
    tolerance: float,
) -> None:
    expected = labels[scores.argmax(axis=1)]
    # Not >, which is false of what is not a number.
    far = ~(np.max(np.abs(found - scores), axis=1, initial=0.0) <= tolerance)
    wrong = np.flatnonzero((said != expected) | far)
    if not len(wrong):
        return
    lines = [
        f"  example {i}: {said[i]!r} {found[i].max():.6f}, and the model "
        f"{expected[i]!r} {scores[i].max():.6f}"
        for i in wrong[:_SHOWN]
    ]
    raise ExportError(
        f"The export's signature {signature} does not answer as the model does, in "
        f"{len(wrong)} of {len(scores)} examples:\n"
        + "\n".join(lines)
        + "\nNothing was "
        f"written. Scores may differ by {tolerance:g}; to allow more: "
        "export(…, tolerance=…), to write it all the same: export(…, check=False)"
    )
