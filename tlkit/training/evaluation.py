"""`evaluate`: computes the loss and the metrics of a classifier on data.

Tested in tests/training/test_fitting.py.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import models, reports
from ..errors import DataError, TrainingError
from .arguments import feed_options
from .feeds.feed import Feed
from .feeds.fit_inputs import make_feed
from .loop.loss_and_metrics import GlobalLoss
from .loop.run import Run
from .model_outputs import collect_outputs


def evaluate(
    model: keras.Model,
    x: tf.data.Dataset | Any,
    y: Any = None,
    *,
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
        batch_size: Examples in a batch.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        Loss, accuracy, macro precision, recall and F1, the metrics of each class and
        the confusion matrix; `print` it.

    Raises:
        DataError: The data is invalid, or the model is not a classifier.
        TrainingError: The model has no loss.

    Example:

    ```python
    evaluation = tlkit.evaluate(model, splits.test)
    evaluation.accuracy, evaluation.macro_f1  # (0.93, 0.92)
    ```
    """
    if x is None:
        raise DataError("There is no such split: the data was not split that way.")
    feed = make_feed(x, y, None, feed_options(model, batch_size=batch_size))
    task = models.task_of(model)
    loss = model.loss if model.compiled else task and task.loss()
    if loss is None:
        raise TrainingError(
            "No loss is given to evaluate. model.compile(loss=…) the model."
        )
    return _evaluate_feed(model, model, feed, GlobalLoss(loss), verbose=verbose)


def final_evaluation(
    run: Run, part: keras.Model, feed: Feed
) -> dict[str, reports.Evaluation]:
    """Evaluates the validation data, if the model is a classifier.

    `part` is the part of the model that `feed` is for.
    """
    if models.task_of(run.model) is None:
        return {}
    evaluation = _evaluate_feed(
        run.model, part, feed, run.settings.loss, verbose=run.verbose
    )
    return {"validation": evaluation}


def _evaluate_feed(
    model: keras.Model, part: keras.Model, feed: Feed, loss: GlobalLoss, *, verbose: int
) -> reports.Evaluation:
    """Evaluates the part of a model that a feed is for."""
    outputs, labels, weights = collect_outputs(
        part, feed, what="evaluating", verbose=verbose
    )
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or len(outputs[0]) < 2:
        raise DataError(
            "tlkit.evaluate is for classifiers with one output [batch, labels]. Use "
            "model.evaluate for this model."
        )
    total, count = loss.sums(
        tf.constant(labels),
        tf.constant(outputs),
        None if isinstance(weights, tuple) else tf.constant(weights),
        None,
    )
    task = models.task_of(model)
    names = task.labels if task is not None else map(str, range(outputs.shape[1]))
    return reports.evaluate_predictions(
        outputs,
        _label_indices(labels),
        label_names=tuple(names),
        loss=float(total / loss.divisor(count)),
    )


def _label_indices(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype(np.int64)
