"""`inspect`: reports an encoder's inputs, outputs, blocks and limitations."""

import dataclasses
import os
from typing import Any

import keras

from ..sources import CATALOG, Card
from .encoder import Block, Encoder, table
from .input_check import describe
from .loading import load_encoder
from .network.network_files import specs_to_json


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The result of `tlkit.inspect`; its `str` is a page of text.

    Args:
        name: Name of the encoder.
        details: The encoder's facts (see `tlkit.encoders.EncoderFacts`) as a dict.
        inputs: Specs of the inputs, a nest of `tf.TensorSpec`.
        outputs: Specs of the outputs, a nest of `tf.TensorSpec`.
        takes_training: Whether training and inference run different functions.
        opened: Whether its graph was split into blocks.
        why_not_opened: The reason why it was not opened; empty if it was.
        blocks: Its blocks in the order of depth.
        parameters: The number of values in its variables.
        batch_norms: The number of its batch norms.
        host_ops: Types of ops that run on no TPU (strings, tables, Python).
        file_ops: Types of ops that use files (its own assets included), connect to
            other machines or run Python.
        missing_gradients: The number of ops whose custom gradient was not saved with
            it. Layers before such an op cannot be trained.
    """

    name: str
    details: dict[str, Any]
    inputs: Any
    outputs: Any
    takes_training: bool
    opened: bool
    why_not_opened: str
    blocks: tuple[Block, ...]
    parameters: int
    batch_norms: int
    host_ops: tuple[str, ...]
    file_ops: tuple[str, ...]
    missing_gradients: int

    def __str__(self) -> str:
        graph = "opened: blocks can be frozen one by one"
        if not self.opened:
            graph = f"not opened, all or nothing: {self.why_not_opened}"
        lines = [
            f"encoder     {self.name} ({self.details.get('kind') or 'kind unknown'})",
            *(f"{key:<12}{value}" for key, value in _facts(self.details)),
            f"graph       {graph}",
            f"training    {'differs' if self.takes_training else 'as inference'}",
            f"parameters  {self.parameters:,}",
            f"batch norms {self.batch_norms}",
            *self._warnings(),
            *_spec_lines("inputs", self.inputs),
            *_spec_lines("outputs", self.outputs),
            "",
            table(self.blocks),
        ]
        return "\n".join(lines)

    def _warnings(self) -> list[str]:
        lines = []
        if self.host_ops:
            lines.append(f"not on TPU  {', '.join(self.host_ops)}")
        if self.file_ops:
            lines.append(f"uses        files or network: {', '.join(self.file_ops)}")
        if self.missing_gradients:
            lines.append(
                f"gradients   {self.missing_gradients} custom gradients were not saved "
                "with it: nothing before them can be trained"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Returns the result as a dict of JSON values, without the vocabulary."""
        hidden = ("vocabulary", "host_ops", "file_ops")
        blocks = [
            {
                "name": block.name,
                "parameters": block.parameters,
                "variables": len(block.variables),
                "batch_norms": block.batch_norms,
                "parts": [part.name for part in block.parts],
            }
            for block in self.blocks
        ]
        details = {k: v for k, v in self.details.items() if k not in hidden}
        return {
            "name": self.name,
            "details": details,
            "takes_training": self.takes_training,
            "opened": self.opened,
            "why_not_opened": self.why_not_opened,
            "parameters": self.parameters,
            "batch_norms": self.batch_norms,
            "host_ops": list(self.host_ops),
            "file_ops": list(self.file_ops),
            "missing_gradients": self.missing_gradients,
            "inputs": specs_to_json(self.inputs),
            "outputs": specs_to_json(self.outputs),
            "blocks": blocks,
        }


def inspect(
    source: str | os.PathLike | keras.Model | Encoder,
    *,
    trust: bool = False,
    verbose: int = 1,
) -> Inspection:
    """Loads an encoder and reports its inputs, outputs, blocks and limitations.

    Args:
        source: A source of `tlkit.load_encoder`, or an encoder.
        trust: See `tlkit.load_encoder`.
        verbose: 0 prints nothing, 1 prints the result as a page of text. For a name in
            the catalog, 1 also prints the catalog's entry before any download.

    Returns:
        The result; its `str` is the page.

    Raises:
        SourceError: The encoder was not found or could not be fetched, or it contains
            ops that need `trust=True`; the error lists them.
        EncoderError: The source cannot be used as an encoder.

    Example:

    ```python
    tlkit.inspect(tlkit.samples.encoder("resnet50"), verbose=0).batch_norms  # 53
    ```
    """
    if verbose and isinstance(source, str) and source in CATALOG:
        print(_card_text(CATALOG[source]), flush=True)
    encoder = source
    if not isinstance(source, Encoder):
        encoder = load_encoder(source, trust=trust)
    network = getattr(encoder, "network", None)
    result = Inspection(
        name=encoder.facts.name or encoder.name,
        details=encoder.facts.to_config(),
        inputs=encoder.inputs_spec,
        outputs=encoder.outputs_spec,
        takes_training=encoder.facts.takes_training,
        opened=encoder.opened,
        why_not_opened=encoder.why_not_opened,
        blocks=encoder.blocks,
        parameters=sum(block.parameters for block in encoder.blocks),
        batch_norms=sum(block.batch_norms for block in encoder.blocks),
        host_ops=encoder.facts.host_ops,
        file_ops=encoder.facts.file_ops,
        missing_gradients=getattr(network, "missing_gradients", 0),
    )
    if verbose:
        print(result)
    return result


def _facts(details: dict[str, Any]) -> list[tuple[str, str]]:
    size, vocabulary = details["image_size"], details["vocabulary"]
    case = "lower case" if details["lower_case"] else "cased"
    facts = [
        ("images", size and f"{size} pixels"),
        ("pixels", details["pixels"]),
        ("vocabulary", vocabulary and f"{len(vocabulary):,} word pieces, {case}"),
        ("preprocessor", details["preprocessor"] and f" {details['preprocessor']}"),
        ("licence", details["licence"]),
        ("address", details["tried"] is False and "never tested online"),
    ]
    return [(label, value) for label, value in facts if value]


def _card_text(card: Card) -> str:
    lines = [f"catalog     {card.name} ({card.kind})"]
    for label, value in (
        ("tfhub.dev", card.tfhub),
        ("kaggle", card.kaggle),
        ("preset", card.preset),
        ("note", card.note),
    ):
        if value:
            lines.append(f"{label:<12}{value}")
    if not card.tried:
        lines.append("address     never tested online")
    return "\n".join(lines)


def _spec_lines(label: str, specs: Any) -> list[str]:
    rows = specs.items() if isinstance(specs, dict) else [("", specs)]
    texts = [
        f"{key}: {describe(spec)}" if key else describe(spec) for key, spec in rows
    ]
    return [f"{label if i == 0 else '':<12}{text}" for i, text in enumerate(texts)]
