"""Divides an encoder at a cut into a prefix and a remainder.

As long as nothing in the prefix is trained, the tensor at the cut depends only on the
inputs, so it can be computed once and cached. `encoder.run_to` computes it;
`encoder(state, start=section)` runs the remainder on a `cut_state`.

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
    """Whether the encoder has sections, so that it can be divided."""
    return hasattr(encoder, "sections")


def cut_name(encoder: OpenedEncoder, section: int) -> str:
    """Returns the name of the block or part before a section."""
    return encoder.part_names[section - 1]


def needed_inputs(encoder: OpenedEncoder, section: int) -> tuple[int, ...]:
    """Returns the positions of the inputs that the remainder from a section on needs.

    Raises:
        EncoderError: The prefix computes an output, which the remainder lacks.
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
    """Returns the encoder's flat inputs from a `cut_state`; `None` for missing ones."""
    specs = tf.nest.flatten(encoder.inputs_spec)
    return [inputs.get(str(i)) for i in range(len(specs))]
