"""Divides an encoder at a cut into a prefix and a remainder.

While the prefix is frozen, the tensor at the cut depends only on the inputs, so it can
be computed once and cached. `encoder.run_to` computes this tensor. `cut_state` combines
it with the inputs that the remainder needs, and `encoder(state, start=section)` runs
the remainder.

Tested in tests/models/test_model_prefix.py.
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
    """Returns whether the encoder can be divided, which requires sections."""
    return hasattr(encoder, "sections")


def cut_name(encoder: OpenedEncoder, section: int) -> str:
    """Returns the name of the block or part that ends where a section begins."""
    return encoder.part_names[section - 1]


def needed_inputs(encoder: OpenedEncoder, section: int) -> tuple[int, ...]:
    """Returns the positions of the encoder's inputs that the remainder needs.

    Args:
        encoder: An opened encoder.
        section: Index of the section at which the remainder begins.

    Raises:
        EncoderError: The prefix computes one of the encoder's outputs, which the
            remainder cannot return.
    """
    network = encoder.network
    for training, graph in network.graphs.items():
        outputs = range(len(graph.outputs))
        if min(network.section_of_output(i, training) for i in outputs) < section:
            raise EncoderError(
                "The encoder has outputs of blocks before the cut. Load it with the "
                "one output that is needed: tlkit.load_encoder(source, output=…)."
            )
    return network.needed_inputs(section)


def cut_state(
    cut: tf.Tensor, inputs: Sequence[tf.Tensor], needed: Sequence[int]
) -> dict[str, Any]:
    """Returns the remainder's input: the tensor at the cut and the needed inputs."""
    return {"cut": cut, "inputs": {str(i): inputs[i] for i in needed}}


def all_inputs(
    encoder: Encoder, inputs: Mapping[str, tf.Tensor]
) -> list[tf.Tensor | None]:
    """Returns the encoder's flattened inputs from the `"inputs"` of a `cut_state`.

    An input that the remainder does not need is `None`.
    """
    specs = tf.nest.flatten(encoder.inputs_spec)
    return [inputs.get(str(i)) for i in range(len(specs))]
