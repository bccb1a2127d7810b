"""The main job from end to end: a real encoder, real data, a served model."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ..data import Splits
from ..errors import ExportError, SourceError
from ..models import image_classifier, text_classifier
from ..serving import (
    RAW,
    export,
    predict_standalone,
    signature_inputs,
    take_examples,
)
from ..training import Phase, evaluate, fit, predict
from .datasets import data, splits
from .sample_encoders import encoder


def demo(
    kind: str,
    *,
    directory: str | os.PathLike = "runs/demo",
    export_to: str | os.PathLike = "saved_models/demo",
    seed: int = 0,
    verbose: int = 1,
) -> dict[str, Any]:
    """Trains a real encoder on real data, writes the served model and asks it.

    Args:
        kind: `"text"` (MiniLM on Reuters R8: head, then the last blocks) or `"image"`
            (ResNet-50 at half width on 5,000 digits of MNIST, a fifth of them for the
            test: head, then the last stages).
        directory: Folder of the run; the report goes to a folder of the kind in it.
        export_to: Folder of the served models, likewise.
        seed: Decides splits, order and dropout.
        verbose: 0 is silent, 1 shows progress and the figures.

    Returns:
        `accuracy` and `macro_f1` on the test examples, `seconds` for everything,
        `export` (the folder of the served model), `served_label` (what it answers to
        the first test example in a process without tlkit, equal to what
        `tlkit.predict` says) and `peak_memory_mb`.

    Raises:
        SourceError: There is no such demo, or a sample could not be fetched.
        ExportError: The served model answers otherwise than the trained one.

    Example:

    ```python
    figures = tlkit.samples.demo("text")
    figures["accuracy"]  # 0.975
    ```
    """
    if kind not in _DEMOS:
        raise SourceError(f"There is no demo {kind!r}. There are: {', '.join(_DEMOS)}.")
    begin = time.perf_counter()
    keras.utils.set_random_seed(seed)
    directory, export_to = pathlib.Path(directory) / kind, pathlib.Path(export_to)
    # A demo that was broken off begins anew.
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    model, data_splits, schedule, examples = _DEMOS[kind](seed, verbose)
    report = fit(
        model,
        data_splits,
        schedule=schedule,
        directory=directory,
        seed=seed,
        verbose=verbose,
    )
    if verbose:
        print(report)
    evaluation = evaluate(model, data_splits.test, verbose=verbose)
    (directory / "test.json").write_text(evaluation.to_json() + "\n")
    path = export(
        model,
        export_to / kind,
        examples=data_splits.validation,
        report=report,
        verbose=verbose,
    )
    told = [p.label for p in predict(model, examples, verbose=0)]
    served = _served(model, path, examples)
    if served != told:
        raise ExportError(
            f"The served model in {path} answers {served}, the trained one {told}."
        )
    if verbose:
        print(evaluation)
        print(f"served without tlkit: {served[0]!r}, as tlkit.predict says")
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_f1": round(evaluation.macro_f1, 4),
        "seconds": round(time.perf_counter() - begin, 1),
        "export": str(path),
        "served_label": served[0],
        "peak_memory_mb": _peak_memory_mb(),
    }


def _text(seed: int, verbose: int):
    found = splits("reuters-r8", seed=seed, verbose=verbose)
    source = encoder("minilm", verbose=verbose)
    model = text_classifier(source, found.labels)
    schedule = [
        Phase("head", epochs=15, learning_rate=1e-2, name="head"),
        Phase(2, epochs=2, learning_rate=1e-4, warmup=0.1, name="last two blocks"),
    ]
    return model, found, schedule, data("reuters-r8", verbose=0).test_texts[:8]


def _image(seed: int, verbose: int):
    found: Splits = splits("mnist-5k", test=0.2, seed=seed, verbose=verbose)
    source = encoder("resnet50", verbose=verbose)
    model = image_classifier(source, found.labels, image_size=64)
    schedule = [
        Phase("head", epochs=15, learning_rate=1e-2, name="head"),
        # Digits are far from what the encoder saw: its batch norms learn them too.
        Phase(
            2,
            epochs=5,
            learning_rate=1e-3,
            warmup=0.1,
            batch_norm="train",
            name="last two stages",
        ),
    ]
    digits = [np.asarray(raw) for raw, _ in found.test.take(1).as_numpy_iterator()]
    return model, found, schedule, digits


_DEMOS = {"text": _text, "image": _image}


def _served(model: keras.Model, path: pathlib.Path, examples: Sequence) -> list[str]:
    """The labels that a process without tlkit gives."""
    inputs = signature_inputs(model, take_examples(model, examples).raws)
    labels = predict_standalone(path, {RAW: inputs})[RAW]["label"]
    return [label.decode() for label in labels]


def _peak_memory_mb() -> float | None:
    """The most memory that this process has held, in MB; `None` where nobody tells."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
