"""Records the progress of a loop in a graph, in case the data ends during the loop.

TensorFlow then raises an error instead of returning the loop's results, although the
loop has updated weights. Tested in tests/training/loop/test_data_end.py.
"""

import tensorflow as tf


class LoopProgress:
    """Counts the completed iterations of a loop.

    Args:
        strategy: The strategy in whose scope the loop runs.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        with strategy.scope():
            self._values = tf.Variable([0, -1], dtype=tf.int64, trainable=False)

    def begin(self) -> None:
        """Resets the record, as an op in the graph; call it before the loop."""
        self._values.assign([0, -1])

    def record(self, done: tf.Tensor, bad: tf.Tensor) -> None:
        """Records the state after an iteration, as an op in the graph.

        Args:
            done: int64 scalar, the number of completed iterations.
            bad: int64 scalar, the first iteration that failed, or -1.
        """
        self._values.assign(tf.stack([done, bad]))

    def read(self) -> tuple[int, int]:
        """Returns the last recorded `done` and `bad`, eagerly."""
        done, bad = self._values.numpy()
        return int(done), int(bad)
