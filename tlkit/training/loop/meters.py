"""The figures of an epoch: the mean loss and the metrics."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from .loss_and_metrics import shares

# Metrics that take the number of a class; MixUp's labels are shares of several.
_OF_NUMBERS = (
    keras.metrics.SparseCategoricalAccuracy,
    keras.metrics.SparseTopKCategoricalAccuracy,
)


class Meters:
    """The mean loss and the metrics over the batches of an epoch.

    Args:
        metrics: Keras metrics that are fed labels and outputs.
    """

    def __init__(self, metrics: Sequence[keras.metrics.Metric]):
        self.loss = keras.metrics.Mean(name="loss")
        self.metrics = list(metrics)

    @property
    def all(self) -> tuple[keras.metrics.Metric, ...]:
        """The loss and the metrics."""
        return (self.loss, *self.metrics)

    def update(self, loss, count, labels, outputs, present) -> None:
        """Takes in one batch of one replica."""
        self.loss.update_state(loss, sample_weight=count)
        # As Keras: a metric of the user's may not take weights.
        weights = {} if present is None else {"sample_weight": present}
        mixed = shares(labels, outputs)
        for metric in self.metrics:
            of_numbers = mixed and isinstance(metric, _OF_NUMBERS)
            true = tf.argmax(labels, axis=-1) if of_numbers else labels
            metric.update_state(true, outputs, **weights)

    def reset(self) -> None:
        """Begins anew."""
        for metric in self.all:
            metric.reset_state()

    def results(self) -> dict[str, float]:
        """The figures so far, by Keras's names."""
        found: dict[str, float] = {}
        for metric in self.all:
            result = metric.result()
            named = result if isinstance(result, dict) else {metric.name: result}
            found |= {key: _plain(value) for key, value in named.items()}
        return found


def _plain(value):
    value = keras.ops.convert_to_numpy(value)
    return float(value) if value.ndim == 0 else value
