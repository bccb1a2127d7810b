"""An encoder in two halves: frozen blocks from its beginning on, and the rest.

What the lower half gives is a pure function of the inputs as long as nothing in it is
trained, so it can be computed once. The upper half goes on from there: `encoder(state,
start=section)`, where `state` is what `cut_state` makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ..errors import EncoderError
from .encoder import Encoder

if TYPE_CHECKING:
    from .opened_encoder import OpenedEncoder


def can_divide(encoder: Encoder) -> bool:
    """Whether there are cuts at which the encoder can be divided."""
    return hasattr(encoder, "sections")


def cut_name(encoder: OpenedEncoder, section: int) -> str:
    """Name of the block or part that ends where a section begins."""
    return encoder.part_names[section - 1]


def needed_inputs(encoder: OpenedEncoder, section: int) -> tuple[int, ...]:
    """Positions of the encoder's inputs that its upper half needs, beside the cut.

    Args:
        encoder: The encoder.
        section: Where the upper half begins, from 1 on.

    Raises:
        EncoderError: An output is made in the lower half, so the upper one lacks it.
    """
    network = encoder.network
    for training, graph in network.graphs.items():
        outputs = range(len(graph.outputs))
        if min(network.section_of_output(i, training) for i in outputs) < section:
            raise EncoderError(
                "The encoder gives outputs of blocks that lie before the cut. Load it "
                "with the one output that is needed: tlkit.load_encoder(source, "
                "output=…)."
            )
    return network.needed_inputs(section)


def cut_state(
    cut: tf.Tensor, inputs: Sequence[tf.Tensor], needed: Sequence[int]
) -> dict[str, Any]:
    """What the upper half takes.

    Args:
        cut: The tensor at the cut.
        inputs: The encoder's inputs, flattened.
        needed: What `needed_inputs` gave.
    """
    return {"cut": cut, "inputs": {str(place): inputs[place] for place in needed}}


def all_inputs(encoder: Encoder, given: Mapping[str, tf.Tensor]) -> list:
    """All inputs, flattened; `None` for those that the upper half does without."""
    specs = tf.nest.flatten(encoder.inputs_spec)
    return [given.get(str(place)) for place in range(len(specs))]
