"""Stretches: what of a network is run at once, and what comes of it."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Some neighboring segments, and how they run.

    Args:
        first: Index of the first segment.
        last: Index of the last segment, included.
        training: Which of the two graphs.
        running: Whether batch norms keep to their running statistics in training.
        thawed: Positions of the variables to be differentiated.
        outputs: Positions of the network's outputs that are wanted from here.
        updates: Positions of the variables whose new values are wanted.
        taps: Indices of the segments whose last tensors are wanted.
        keep_cut: Whether the tensor at the end of the stretch is wanted.
    """

    first: int
    last: int
    training: bool
    running: bool
    thawed: frozenset[int]
    outputs: tuple[int, ...]
    updates: tuple[int, ...]
    taps: tuple[int, ...] = ()
    keep_cut: bool = True


@dataclasses.dataclass(frozen=True)
class Results:
    """What a stretch gives.

    Args:
        cut: The tensor at its end, if wanted.
        outputs: The network's outputs, by position.
        updates: New values of variables, by position.
        taps: The tensors behind segments, by the segment's index.
    """

    cut: tf.Tensor | None
    outputs: dict[int, tf.Tensor]
    updates: dict[int, tf.Tensor]
    taps: dict[int, tf.Tensor]


def run_nodes(definition, tensors: dict[str, tf.Tensor], wanted: list[str]):
    """Runs nodes, eagerly too."""
    names = list(tensors)

    @tf.function(autograph=False)
    def run(values):
        return import_nodes(definition, dict(zip(names, values, strict=True)), wanted)

    values = list(tensors.values())
    # Not called, or TensorFlow would count the calls and warn of too many traces.
    return run.get_concrete_function(values)(values)


def import_nodes(definition, tensors: dict[str, tf.Tensor], wanted: list[str]):
    """Imports nodes and gives the wanted tensors, which may be among those given."""
    used = {t for node in definition.node for t in node.input}
    made = [name for name in wanted if name not in tensors]
    results = tf.graph_util.import_graph_def(
        definition,
        {name: tensor for name, tensor in tensors.items() if name in used},
        made,
        name="encoder",
    )
    found = dict(zip(made, results, strict=True)) | tensors
    return [found[name] for name in wanted]
