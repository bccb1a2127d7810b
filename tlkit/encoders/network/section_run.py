"""One call of a network: which sections run, in which mode, and what they return.

Tested in tests/encoders/test_forms.py.
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class SectionRun:
    """Some consecutive sections that run in one mode, and the tensors to return.

    Args:
        first: Index of the first section.
        last: Index of the last section, included.
        training: Whether to run the training graph instead of the inference graph.
        running_statistics: Whether to run the version of the training graph whose batch
            norms use their running statistics.
        trainable: Positions of the variables that get gradients.
        outputs: Positions of the network's outputs to return.
        updates: Positions of the variables whose new values are returned.
        taps: Indices of the sections whose tap is returned (see `Network.tap`).
        return_cut: Whether to return the tensor at the end of the last section.
    """

    first: int
    last: int
    training: bool = False
    running_statistics: bool = False
    trainable: frozenset[int] = frozenset()
    outputs: tuple[int, ...] = ()
    updates: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    return_cut: bool = True


@dataclasses.dataclass(frozen=True)
class SectionResults:
    """The tensors that a `SectionRun` returns.

    Outputs and updates are by position, taps by the index of the section.
    """

    cut: tf.Tensor | None
    outputs: dict[int, tf.Tensor]
    updates: dict[int, tf.Tensor]
    taps: dict[int, tf.Tensor]
