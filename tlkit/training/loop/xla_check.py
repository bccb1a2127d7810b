"""What XLA cannot compile, said before or in one sentence after it was tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from ...encoders import find_encoder, why_not_compiled
from ...errors import TrainingError
from ..plans.trainable_selection import Choice

_WITHOUT = "Leave jit_compile=True out."


def check_compilable(model: keras.Model, choice: Choice) -> None:
    """Refuses to compile the training of an encoder that could not be opened.

    XLA takes what passes the border of its restored function for constant, and compiles
    anew for each batch.

    Raises:
        TrainingError: It would be trained.
    """
    encoder = find_encoder(model)
    if encoder is not None and not encoder.opened and choice.blocks:
        raise TrainingError(
            "XLA would compile the training of this encoder anew for every batch, as "
            f"it calls a restored function: {encoder.why_not_opened}. {_WITHOUT}"
        )


@contextlib.contextmanager
def naming_what_xla_lacks(jit_compile: bool) -> Iterator[None]:
    """Turns XLA's errors into one that names the op.

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
            f"XLA cannot compile the training step: {why}. {_WITHOUT}"
        ) from error
