"""Explains why XLA cannot compile a step, before it tries or when it fails."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from ...encoders import find_encoder, why_not_compiled
from ...errors import TrainingError
from ..plans.plan import PhasePlan

_REMEDY = "Leave jit_compile=True out."


def check_compilable(model: keras.Model, planned: PhasePlan) -> None:
    """Rejects XLA for training an encoder that calls a SavedModel's restored function.

    XLA treats the arguments of a restored function as constants, and would compile the
    step again for each batch.

    Raises:
        TrainingError: The phase trains blocks of such an encoder.
    """
    encoder = find_encoder(model)
    if encoder is not None and not encoder.opened and planned.selection.blocks:
        raise TrainingError(
            "XLA would compile the training of this encoder again for every batch, "
            f"since it calls a restored function: {encoder.why_not_opened}. {_REMEDY}"
        )


@contextlib.contextmanager
def explaining_xla_errors(jit_compile: bool) -> Iterator[None]:
    """Replaces an error of XLA by one that names the op that cannot be compiled.

    Raises:
        TrainingError: The step cannot be compiled.
    """
    try:
        yield
    except tf.errors.OpError as error:
        why = why_not_compiled(error) if jit_compile else None
        if why is None:
            raise
        raise TrainingError(
            f"XLA cannot compile the training step: {why}. {_REMEDY}"
        ) from error
