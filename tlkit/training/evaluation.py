"""`evaluate`: how good a model is on some data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import models, reports
from ..errors import DataError, TrainingError
from .arguments import options_for
from .feeds.feed import Feed
from .feeds.fit_inputs import make_feed
from .loop.loss_and_metrics import Objective
from .model_outputs import collect


def evaluate(
    model: keras.Model,
    x: tf.data.Dataset | Any,
    y: Any = None,
    *,
    batch_size: int = 32,
    verbose: int = 1,
) -> reports.Evaluation:
    """Measures how good a classifier is.

    Args:
        model: A model of `tlkit`, or any compiled Keras classifier with one output
            `[batch, labels]`.
        x: A split such as `splits.test`, a batched `tf.data.Dataset`, or arrays or
            texts, as for `tlkit.fit`.
        y: The labels of arrays and texts, as indices or names.
        batch_size: Examples in a batch.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        Loss, accuracy, macro precision, recall and F1, the figures of each class and
        the confusion matrix; `print` it.

    Raises:
        DataError: The data is not what it should be, or the model no classifier.

    Example:

    ```python
    evaluation = tlkit.evaluate(model, splits.test)
    print(evaluation.accuracy, evaluation.macro_f1)
    ```
    """
    if x is None:
        raise DataError("There is no such split: the data was not split that way.")
    feed = make_feed(x, y, None, options_for(model, batch_size=batch_size))
    task = models.task_of(model)
    loss = model.loss if model.compiled else task and task.loss()
    if loss is None:
        raise TrainingError(
            "Nothing says which loss to measure. model.compile(loss=…) the model."
        )
    return evaluate_feed(model, model, feed, Objective(loss), verbose=verbose)


def evaluate_feed(
    model: keras.Model,
    part: keras.Model,
    feed: Feed,
    objective: Objective,
    *,
    verbose: int = 1,
) -> reports.Evaluation:
    """Measures with a feed.

    Args:
        model: The model, for its labels.
        part: What the feed is for: the model or its top.
        feed: The examples.
        objective: The loss.
        verbose: 0 for silence.
    """
    outputs, labels, weights = collect(part, feed, what="evaluating", verbose=verbose)
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or len(outputs[0]) < 2:
        raise DataError(
            "tlkit.evaluate measures classifiers with one output [batch, labels]. Use "
            "model.evaluate for this model."
        )
    total, count = objective.sums(
        tf.constant(labels),
        tf.constant(outputs),
        None if isinstance(weights, tuple) else tf.constant(weights),
        None,
    )
    task = models.task_of(model)
    names = task.labels if task is not None else map(str, range(outputs.shape[1]))
    return reports.evaluate_predictions(
        outputs,
        _indices(labels),
        label_names=tuple(names),
        loss=float(total / objective.divisor(count)),
    )


def _indices(labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    return labels.reshape(-1).astype(np.int64)
