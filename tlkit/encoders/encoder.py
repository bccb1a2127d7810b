"""The encoder: a pretrained network as a Keras layer with blocks.

Blocks: the stretches of an encoder that are frozen and thawed as one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError
from .encoder_facts import PACKING_OPTIONS, EncoderFacts
from .input_check import checked_inputs
from .saved_model.trust import trust_source, trusts_keras_file


class Encoder(keras.layers.Layer):
    """A pretrained network as a Keras layer whose blocks can be frozen one by one.

    `tlkit.load_encoder` makes one. It is called like any Keras layer, in Functional,
    Sequential and subclassed models, and saved with them in `.keras` files.

    Attributes:
        blocks: The blocks in the order of depth, as a tuple of `Block`.
        batch_norm: What the batch norms of trained blocks do in training: `"frozen"`
            (use the statistics of the published model) or `"train"` (use those of the
            batch, and update the averages). `tlkit.freeze` sets it.
        dropout: Whether the dropout of trained blocks is on in training. One that has
            batch norms, too, keeps it while these are trained. `tlkit.freeze` sets it.
        facts: What its source states about it, an `EncoderFacts`. Read-only.
        opened: Whether the network could be opened. If not, `why_not_opened` says why,
            and the encoder is frozen or trained as a whole.
    """

    opened = True
    why_not_opened = ""
    # Whether the user trusts the `.keras` file that it is being loaded from.
    trusted = False

    def __init__(
        self,
        *,
        facts: EncoderFacts | None = None,
        old_packing: Mapping[str, Any] | None = None,
        dropout: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dropout = dropout
        self._facts = facts or EncoderFacts()
        self._old_packing = tuple((old_packing or {}).items())
        self.batch_norm = "frozen"
        _refuse_mixed_precision(self)

    @property
    def facts(self) -> EncoderFacts:
        return self._facts

    @property
    def old_packing(self) -> dict[str, Any]:
        """Returns the `Packing` options of its model, if tlkit 0.1 wrote the file."""
        return dict(self._old_packing)

    @property
    def blocks(self) -> tuple[Block, ...]:
        raise NotImplementedError

    @property
    def inputs_spec(self) -> Any:
        """Nest of `tf.TensorSpec`: what the encoder takes; unknown sizes are `None`."""
        raise NotImplementedError

    @property
    def outputs_spec(self) -> Any:
        """Nest of `tf.TensorSpec`: what the encoder gives."""
        raise NotImplementedError

    def block(self, name: str) -> Block:
        """The block of that name.

        Raises:
            EncoderError: There is no such block.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        names = ", ".join(block.name for block in self.blocks)
        raise EncoderError(f"There is no block {name!r}. The blocks are: {names}.")

    @property
    def taps(self) -> tuple[str, ...]:
        """Names of the blocks and parts behind which the tensor can be had.

        `encoder(inputs, taps=[…])` gives a dict of these tensors instead of the
        outputs; `tlkit.tap` makes a Keras model of that. Behind the last block, it is
        the map that goes into the pooling, where there is one.
        """
        return ()

    def checked_taps(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """The names of taps, once each of them is there.

        Raises:
            EncoderError: A tap isn't there.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        for name in names:
            if name not in self.taps:
                there = ", ".join(self.taps) or "none, since it is no opened SavedModel"
                text = f"There is no tap {name!r}. The taps are: {there}."
                if self.taps:
                    text += (
                        f" Type, for the last, tlkit.tap(encoder, {self.taps[-1]!r})."
                    )
                raise EncoderError(text)
        return names

    def __call__(self, inputs, *args, **kwargs):
        # Before Keras's own __call__, which would wrap the error in its words.
        if not kwargs.get("start"):
            self._check_inputs(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def _check_inputs(self, inputs: Any) -> None:
        name = self.facts.name or self.name
        checked_inputs(self.inputs_spec, inputs, name=name)

    def summary(self) -> str:
        """A table of the blocks, for people to read."""
        return table(self.blocks)

    def get_config(self) -> dict[str, Any]:
        # A dtype policy is not kept: the network's dtypes are those of its file.
        config = {"name": self.name, "facts": self.facts.to_config()}
        if self._old_packing:
            config["old_packing"] = self.old_packing
        return config | {"batch_norm": self.batch_norm, "dropout": self.dropout}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Encoder:
        config = dict(config)
        # tlkit 0.1 wrote the facts as `details`, with its model's options among them.
        old = config.pop("details", None)
        if old is not None:
            packing = {name: old[name] for name in PACKING_OPTIONS if name in old}
            config |= {"facts": old, "old_packing": packing}
        config["facts"] = EncoderFacts.from_config(config.get("facts") or {})
        encoder = cls(**config)
        encoder.trusted = trusts_keras_file()
        if encoder.trusted and encoder.facts.preprocessor:
            trust_source(encoder.facts.preprocessor)
        return encoder

    def compute_output_spec(self, inputs, training=None):
        given = {x.shape[0] for x in tf.nest.flatten(inputs) if len(x.shape)}
        batch = given.pop() if len(given) == 1 else None

        def symbolic(spec: tf.TensorSpec) -> keras.KerasTensor:
            shape = tuple(spec.shape)
            shape = (batch, *shape[1:]) if shape[:1] == (None,) else shape
            return keras.KerasTensor(shape, spec.dtype.name)

        return tf.nest.map_structure(symbolic, self.outputs_spec)


def _refuse_mixed_precision(encoder: Encoder) -> None:
    policy = encoder.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        raise EncoderError(
            f"The dtype policy {policy.name!r} cannot take effect inside a SavedModel, "
            "whose dtypes are fixed. Load the encoder in its own precision with "
            'tlkit.load_encoder(source, dtype="float32"); the layers around it may '
            "still use the policy."
        )


# === Blocks ===


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A stretch of an encoder with one tensor in and one tensor out.

    Args:
        name: Its name, such as `"stage3"` or `"layer_11"`; patterns match this.
        variables: Its Keras variables, statistics of batch norms included.
        learnable: Those of them that may be trained.
        batch_norms: How many batch norms it holds.
        parts: The finer stretches inside, such as a ResNet stage's residual units;
            empty where there is only one.
    """

    name: str
    variables: tuple[keras.Variable, ...]
    learnable: tuple[keras.Variable, ...]
    batch_norms: int = 0
    parts: tuple[Block, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers its variables hold."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    @property
    def trainable(self) -> bool:
        """Whether any of its variables is trained."""
        return any(variable.trainable for variable in self.learnable)

    def __repr__(self) -> str:
        return (
            f"Block({self.name!r}, {len(self.variables)} variables, "
            f"{self.parameters:,} parameters, {self.batch_norms} batch norms, "
            f"{len(self.parts)} parts)"
        )


def table(blocks: Sequence[Block]) -> str:
    """A table of blocks for people to read, one line each."""
    rows = [("block", "parameters", "variables", "batch norms", "parts", "trained")]
    for block in blocks:
        numbers = (block.parameters, len(block.variables), block.batch_norms)
        cells = [f"{number:,}" for number in (*numbers, len(block.parts))]
        rows.append((block.name, *cells, "yes" if block.trainable else "no"))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)
