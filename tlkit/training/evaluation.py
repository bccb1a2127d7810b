"""`evaluate`: computes the loss and the metrics of a classifier on data.

Tested in tests/training/test_fitting.py.
"""

import math
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import models, reports
from ..errors import DataError, TrainingError
from .arguments import feed_options
from .data_arguments import label_range
from .feeds.data_errors import naming_data_errors
from .feeds.feed import Feed
from .feeds.fit_inputs import make_feed
from .feeds.label_check import check_labels
from .loop.compiled_model import compiled
from .loop.loss_and_metrics import GlobalLoss
from .loop.run import Run
from .model_outputs import collect_outputs
from .run_setup import compile_arguments


@naming_data_errors()
def evaluate(
    model: keras.Model,
    x: tf.data.Dataset | Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int = 32,
    verbose: int = 1,
) -> reports.Evaluation:
    """Evaluates a classifier on data.

    Args:
        model: A model of `tlkit`, or any compiled Keras classifier with one output
            `[batch, labels]`.
        x: A split such as `splits.test`, a batched `tf.data.Dataset`, or arrays or
            texts, as for `tlkit.fit`.
        y: The labels of arrays and texts, as indices or names.
        sample_weight: Weights of the examples of arrays in the loss, `[n]`.
        batch_size: Examples in a batch.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        Loss, accuracy, macro precision, recall and F1, the metrics of each class and
        the confusion matrix; `print` it.

    Raises:
        DataError: The data is invalid, or the model is not a classifier.
        TrainingError: The model has no loss, or an output is not finite.

    Example:

    ```python
    evaluation = tlkit.evaluate(model, splits.test)
    evaluation.accuracy, evaluation.macro_f1  # (0.93, 0.92)
    ```
    """
    if x is None:
        raise DataError("There is no such split: the data was not split that way.")
    options = feed_options(model, batch_size=batch_size)
    feed = make_feed(x, y, sample_weight, options)
    if feed.steps == math.inf:
        raise DataError("The data does not end. Give a part of it: dataset.take(100).")
    if (allowed := label_range(model)) is not None:
        feed = check_labels(feed, allowed, "test")
    arguments = compile_arguments(model, None, None, ())
    with compiled(
        model, arguments, arguments.optimizer, feed.element_spec, lambda m: m
    ):
        return _evaluate_feed(model, model, feed, GlobalLoss(model), verbose=verbose)


def final_evaluation(
    run: Run, part: keras.Model, feed: Feed
) -> dict[str, reports.Evaluation]:
    """Evaluates the validation data, if the model is a classifier.

    `part` is the model, or its remainder if `feed` contains cached activations.
    """
    if models.task_of(run.model) is None:
        return {}
    try:
        evaluation = _evaluate_feed(
            run.model, part, feed, run.settings.loss, verbose=run.verbose
        )
    except TrainingError as error:  # only a warning, or `fit` would return no report
        warnings.warn(f"The validation data is not evaluated: {error}", stacklevel=2)
        return {}
    return {"validation": evaluation}


def _evaluate_feed(
    model: keras.Model, part: keras.Model, feed: Feed, loss: GlobalLoss, *, verbose: int
) -> reports.Evaluation:
    """Evaluates a model by running `part`, the model or its remainder, on a feed."""
    if loss.overridden:
        raise TrainingError(
            f"{type(model).__name__}.compute_loss is overridden, and tlkit.evaluate "
            "does not call it. Use model.evaluate for this model."
        )
    (outputs, added), labels, weights = collect_outputs(
        part, feed, what="evaluating", verbose=verbose, with_losses=True
    )
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or len(outputs[0]) < 2:
        raise DataError(
            "tlkit.evaluate is for classifiers with one output [batch, labels]. Use "
            "model.evaluate for this model."
        )
    if not np.isfinite(outputs).all():
        example = int(np.argmin(np.isfinite(outputs).all(axis=1)))
        raise TrainingError(
            f"The model's output for example {example} is not finite, so it has no "
            "label. Look for non-finite numbers in the data, or in the weights: "
            "training may have diverged."
        )
    labels, outputs = tf.constant(labels), tf.constant(outputs)
    weights = None if isinstance(weights, tuple) else tf.constant(weights)
    value, _ = loss.value(None, labels, outputs, weights, training=False)
    value += np.mean(added)
    task = models.task_of(model)
    names = task.labels if task is not None else map(str, range(outputs.shape[1]))
    return reports.evaluate_predictions(
        outputs.numpy(),
        _label_indices(labels.numpy()),
        label_names=tuple(names),
        loss=float(value),
    )


def _label_indices(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype(np.int64)
