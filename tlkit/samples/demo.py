"""Trains, evaluates and exports a model of a sample encoder and sample data.

Tested in tests/test_cli.py.
"""

import os
import shutil
import sys
import time
from typing import Any

import keras

from ..data import take_per_class
from ..errors import ExportError, SourceError
from ..files import user_path
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
    examples_per_class: int | None = None,
    directory: str | os.PathLike = "runs/demo",
    export_to: str | os.PathLike = "saved_models/demo",
    seed: int = 0,
    verbose: int = 1,
) -> dict[str, Any]:
    """Trains a real encoder on real data, exports the model and queries the export.

    Args:
        kind: `"text"` (MiniLM on Reuters R8: head, then the last blocks) or `"image"`
            (ResNet-50 at half width on 5,000 digits of MNIST, a fifth of them as the
            test split: head, then the last stages).
        examples_per_class: Trains on this many examples of each class only, which is
            quicker. Default: all.
        directory: Folder of the run; the report is written to `<directory>/<kind>`.
        export_to: Folder of exports; the model is written to `<export_to>/<kind>`.
        seed: Determines splits, order and dropout.
        verbose: 0 is silent, 1 shows progress and results.

    Returns:
        `accuracy` and `macro_f1` of the test split, `seconds` of the whole run,
        `export` (the folder of the exported model), `served_label` (the label that the
        export predicts for the first test example in a process without tlkit; the same
        as that of `tlkit.predict`) and `peak_memory_mb`.

    Raises:
        SourceError: The kind is unknown, or a sample could not be downloaded.
        ExportError: The exported model and the trained one predict different labels.

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
    directory, export_to = user_path(directory) / kind, user_path(export_to)
    # So that an interrupted demo starts from the beginning and does not resume.
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    model, data_splits, schedule, examples = _DEMOS[kind](seed, verbose)
    if examples_per_class is not None:
        data_splits = take_per_class(data_splits, examples_per_class, seed=seed)
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
    predicted = [p.label for p in predict(model, examples, verbose=0)]
    inputs = signature_inputs(model, take_examples(model, examples).raws)
    labels = predict_standalone(path, {RAW: inputs})[RAW]["label"]
    served = [label.decode() for label in labels]
    if served != predicted:
        raise ExportError(
            f"The exported model in {path} predicts {served}, the trained one "
            f"{predicted}."
        )
    if verbose:
        print(evaluation)
        print(f"served without tlkit: {served[0]!r}, equal to tlkit.predict")
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_f1": round(evaluation.macro_f1, 4),
        "seconds": round(time.perf_counter() - begin, 1),
        "export": str(path),
        "served_label": served[0],
        "peak_memory_mb": _peak_memory_mb(),
    }


def _text(seed: int, verbose: int):
    data_splits = splits("reuters-r8", seed=seed, verbose=verbose)
    source = encoder("minilm", verbose=verbose)
    model = text_classifier(source, data_splits.labels)
    schedule = [
        Phase("head", epochs=15, learning_rate=1e-2, name="head"),
        Phase(2, epochs=2, learning_rate=1e-4, warmup=0.1, name="last two blocks"),
    ]
    return model, data_splits, schedule, data("reuters-r8", verbose=0).test_texts[:8]


def _image(seed: int, verbose: int):
    data_splits = splits("mnist-5k", test=0.2, seed=seed, verbose=verbose)
    source = encoder("resnet50", verbose=verbose)
    model = image_classifier(source, data_splits.labels, image_size=64)
    schedule = [
        Phase("head", epochs=15, learning_rate=1e-2, name="head"),
        # Digits differ from the pretraining data, so the batch norms are trained too.
        Phase(
            2,
            epochs=5,
            learning_rate=1e-3,
            warmup=0.1,
            batch_norm="train",
            name="last two stages",
        ),
    ]
    digit, _ = next(iter(data_splits.test))
    return model, data_splits, schedule, [digit.numpy()]


_DEMOS = {"text": _text, "image": _image}


def _peak_memory_mb() -> float | None:
    """Returns the peak memory of this process in MB; `None` on Windows."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)
