"""The progress of a loop in a graph, which can be read if the data ends in it.

TensorFlow then raises an error instead of returning what the loop has done, although
the weights have been updated. Tested in tests/training/loop/test_data_end.py.
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
        """Starts at zero, in the graph."""
        self._values.assign([0, -1])

    def record(self, done: tf.Tensor, bad: tf.Tensor) -> None:
        """Records the state after an iteration, in the graph.

        Args:
            done: int64 scalar, the number of completed iterations.
            bad: int64 scalar, the first iteration that failed, or -1.
        """
        self._values.assign(tf.stack([done, bad]))

    def read(self) -> tuple[int, int]:
        """Returns what was recorded last: `done` and `bad`."""
        done, bad = self._values.numpy()
        return int(done), int(bad)
