"""The base class of encoders: a pretrained network as a Keras layer with blocks.

Tested in tests/encoders/test_forms.py.
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

    `tlkit.load_encoder` returns one. It is called like any Keras layer, in Functional,
    Sequential and subclassed models, and saved with them in `.keras` files.

    Attributes:
        blocks: The blocks in the order of depth, as a tuple of `Block`.
        batch_norm: The mode of batch norms in trainable blocks in training: `"frozen"`
            uses the published statistics, `"train"` uses those of the batch and updates
            the averages. `tlkit.freeze` sets it.
        dropout: Whether dropout in trainable blocks is on in training. A block with
            trained batch norms always has it on. `tlkit.freeze` sets it.
        facts: The facts that its source states, as `EncoderFacts`. Read-only.
        opened: Whether the network could be opened. If not, `why_not_opened` gives the
            reason, and the encoder can be frozen or trained only as a whole.
    """

    opened = True
    why_not_opened = ""
    # Whether the user trusts the `.keras` file that the encoder is loaded from.
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
        _check_precision(self)

    @property
    def facts(self) -> EncoderFacts:
        return self._facts

    @property
    def old_packing(self) -> dict[str, Any]:
        """Returns the model's `Packing` options if tlkit 0.1 saved them here."""
        return dict(self._old_packing)

    @property
    def blocks(self) -> tuple[Block, ...]:
        raise NotImplementedError

    @property
    def inputs_spec(self) -> Any:
        """Returns the specs of the inputs, a nest of `tf.TensorSpec`."""
        raise NotImplementedError

    @property
    def outputs_spec(self) -> Any:
        """Returns the specs of the outputs, a nest of `tf.TensorSpec`."""
        raise NotImplementedError

    def block(self, name: str) -> Block:
        """Returns the block of that name.

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
        """Returns the names of the blocks and parts whose output tensor is available.

        `encoder(inputs, taps=[…])` returns a dict of these tensors instead of the
        outputs; `tlkit.tap` builds a Keras model that returns the dict. If an image
        encoder ends with pooling, the tap of the last block is the feature map before
        the pooling.
        """
        return ()

    def checked_taps(self, names: str | Sequence[str]) -> tuple[str, ...]:
        """Returns the names as a tuple if all of them are taps.

        Raises:
            EncoderError: A name is not a tap.
        """
        names = (names,) if isinstance(names, str) else tuple(names)
        for name in names:
            if name not in self.taps:
                taps = ", ".join(self.taps) or "none, since it is no opened SavedModel"
                text = f"There is no tap {name!r}. The taps are: {taps}."
                if self.taps:
                    text += (
                        f" Type, for the last, tlkit.tap(encoder, {self.taps[-1]!r})."
                    )
                raise EncoderError(text)
        return names

    def __call__(self, inputs, *args, **kwargs):
        # Check here, since Keras's __call__ would wrap the error in another message.
        if not kwargs.get("start"):
            self._check_inputs(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def _check_inputs(self, inputs: Any) -> None:
        checked_inputs(self.inputs_spec, inputs, name=self.facts.name or self.name)

    def summary(self) -> str:
        """Returns a table of the blocks, one line each."""
        return table(self.blocks)

    def get_config(self) -> dict[str, Any]:
        # No dtype policy is stored, since the SavedModel fixes the network's dtypes.
        config = {"name": self.name, "facts": self.facts.to_config()}
        if self._old_packing:
            config["old_packing"] = self.old_packing
        return config | {"batch_norm": self.batch_norm, "dropout": self.dropout}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Encoder:
        config = dict(config)
        # In a config of tlkit 0.1 the facts are named `details`, and include options of
        # the model that used the encoder.
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
        sizes = {x.shape[0] for x in tf.nest.flatten(inputs) if len(x.shape)}
        batch = sizes.pop() if len(sizes) == 1 else None

        def symbolic(spec: tf.TensorSpec) -> keras.KerasTensor:
            shape = tuple(spec.shape)
            shape = (batch, *shape[1:]) if shape[:1] == (None,) else shape
            return keras.KerasTensor(shape, spec.dtype.name)

        return tf.nest.map_structure(symbolic, self.outputs_spec)


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A section of an encoder with one input tensor and one output tensor.

    Args:
        name: Its name, such as `"stage3"` or `"layer_11"`, which patterns match.
        variables: Its Keras variables, batch-norm statistics included.
        learnable: Those of its variables that can be trained.
        batch_norms: Its number of batch norms.
        parts: The smaller sections in it, such as the residual units of a ResNet stage;
            empty if the block cannot be divided.
    """

    name: str
    variables: tuple[keras.Variable, ...]
    learnable: tuple[keras.Variable, ...]
    batch_norms: int = 0
    parts: tuple[Block, ...] = ()

    @property
    def parameters(self) -> int:
        """Returns the number of values in its variables."""
        return sum(math.prod(variable.shape) for variable in self.variables)

    @property
    def trainable(self) -> bool:
        """Returns whether any of its variables is trainable."""
        return any(variable.trainable for variable in self.learnable)

    def __repr__(self) -> str:
        return (
            f"Block({self.name!r}, {len(self.variables)} variables, "
            f"{self.parameters:,} parameters, {self.batch_norms} batch norms, "
            f"{len(self.parts)} parts)"
        )


def table(blocks: Sequence[Block]) -> str:
    """Returns a table of blocks as text, one line each."""
    rows = [("block", "parameters", "variables", "batch norms", "parts", "trained")]
    for block in blocks:
        counts = (block.parameters, len(block.variables), block.batch_norms)
        cells = [f"{count:,}" for count in (*counts, len(block.parts))]
        rows.append((block.name, *cells, "yes" if block.trainable else "no"))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _check_precision(encoder: Encoder) -> None:
    policy = encoder.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        raise EncoderError(
            f"The dtype policy {policy.name!r} cannot take effect inside a SavedModel, "
            "whose dtypes are fixed. Load the encoder in its own precision with "
            'tlkit.load_encoder(source, dtype="float32"); the layers around it may '
            "still use the policy."
        )
