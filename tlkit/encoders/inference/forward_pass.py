"""An opened encoder as a function whose weights are constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..input_check import cast_inputs
from .folding import frozen_function

if TYPE_CHECKING:
    from ..opened_encoder import OpenedEncoder


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a frozen encoder gives of a batch.

    Args:
        cuts: The tensors at the beginnings of segments, by the index of the segment.
        outputs: The encoder's outputs; `None` if they were not wanted.
    """

    cuts: dict[int, tf.Tensor]
    outputs: Any


class FrozenForward:
    """An opened encoder for inference at its best speed: its weights are constants.

    It holds the values that the weights had when it was made, folded into each other:
    what becomes of the weights afterwards does not reach it, so make another one then.
    That is as much memory again as the weights take. It runs eagerly and within graphs,
    such as those of `tf.data` and `tf.function`. The weights get no gradients from it.

    Args:
        encoder: An opened encoder.
        cuts: Indices of the segments at whose beginning the tensor is wanted, from 1
            on.
        outputs: Whether the encoder's outputs are wanted. Without them, nothing behind
            the last cut is run.

    Raises:
        ValueError: There is no such cut, or nothing is wanted.

    Example:

    >>> forward = FrozenForward(encoder, [3])
    >>> found = forward(images)
    >>> found.cuts[3].shape, found.outputs.shape
    """

    def __init__(
        self, encoder: OpenedEncoder, cuts: Sequence[int] = (), *, outputs: bool = True
    ):
        network = encoder.network
        self._check(cuts, outputs, len(network.segments))
        self.cuts = tuple(sorted(set(cuts)))
        self._inputs, self._outputs = encoder.inputs_spec, encoder.outputs_spec
        self._wants_outputs = outputs
        graph = network.graphs[False]
        # A segment begins where the one before it stops.
        wanted = [network.segments[i - 1].stops[False] for i in self.cuts]
        wanted += graph.outputs if outputs else ()
        self._function = frozen_function(
            graph, wanted, value_of=encoder._value, resources=network.resources
        )
        self._owner = network.owner  # of the resources, to be kept alive

    def _check(self, cuts: Sequence[int], outputs: bool, count: int) -> None:
        if not (cuts or outputs) or not all(0 < i < count for i in cuts):
            raise ValueError(
                f"Cuts must be from 1 to {count - 1}, and a cut or the outputs must be "
                f"wanted. Received: cuts={list(cuts)}, outputs={outputs}"
            )

    def __call__(self, inputs: Any) -> Frozen:
        """Runs the encoder.

        Args:
            inputs: A batch of any size, in the nest that the encoder takes.

        Returns:
            The tensors that are wanted.
        """
        found = self._function(cast_inputs(self._inputs, inputs))
        outputs = found[len(self.cuts) :]
        if self._wants_outputs:
            outputs = tf.nest.pack_sequence_as(self._outputs, outputs)
        return Frozen(
            dict(zip(self.cuts, found, strict=False)),
            outputs if self._wants_outputs else None,
        )
