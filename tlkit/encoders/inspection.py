"""Says what an encoder is, what it takes, its blocks and what it cannot do."""

from __future__ import annotations

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
    """What `tlkit.inspect` found; printing it gives a page for people to read.

    Args:
        name: Name of the encoder.
        details: What is known of it: `kind`, `pixels`, `image_size`, `licence`, `tried`
            (whether anybody loaded this address online) and the like.
        inputs: What it takes, a nest of `tf.TensorSpec`.
        outputs: What it gives, a nest of `tf.TensorSpec`.
        takes_training: Whether it tells training from inference.
        opened: Whether its graph could be opened.
        why_not_opened: If not, why.
        blocks: Its blocks in the order of depth.
        parameters: How many numbers its variables hold.
        batch_norms: How many batch norms it has.
        host_ops: Ops that no TPU runs (text, tables, Python).
        file_ops: Ops that touch files, the network or Python; those on its own assets
            among them.
        missing_gradients: How many custom gradients were not saved with it; what lies
            before them cannot be trained.
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
        graph = "opened: blocks can be frozen and thawed one by one"
        if not self.opened:
            graph = f"not opened, all or nothing: {self.why_not_opened}"
        lines = [
            f"encoder     {self.name} ({self.details.get('kind') or 'kind unknown'})",
            *(f"{key:<12}{value}" for key, value in _facts(self.details)),
            f"graph       {graph}",
            f"training    {'told apart' if self.takes_training else 'as inference'}",
            f"parameters  {self.parameters:,}",
            f"batch norms {self.batch_norms}",
            *self._warnings(),
            *_spec_lines("takes", self.inputs),
            *_spec_lines("gives", self.outputs),
            "",
            table(self.blocks),
        ]
        return "\n".join(lines)

    def _warnings(self) -> list[str]:
        lines = []
        if self.host_ops:
            lines.append(f"not on TPU  {', '.join(self.host_ops)}")
        if self.file_ops:
            lines.append(f"touches     files or network: {', '.join(self.file_ops)}")
        if self.missing_gradients:
            lines.append(
                f"gradients   {self.missing_gradients} custom gradients were not saved "
                "with it: what lies before them cannot be trained"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The figures as a dict that JSON can hold."""
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
    """Loads an encoder and says what it is.

    Args:
        source: As `tlkit.load_encoder` takes it, or an encoder.
        trust: As `tlkit.load_encoder` takes it.
        verbose: 0 to print nothing.

    Returns:
        What was found; its `str` is what is printed.

    Raises:
        SourceError: The encoder was not found or could not be fetched, or does more
            than compute and is not trusted: the error lists its ops. What the catalog
            knows of it is printed before.
        EncoderError: It cannot be used as an encoder.

    Example:

    ```python
    tlkit.inspect(tlkit.samples.encoder("resnet50"))
    ```
    """
    if verbose and isinstance(source, str) and source in CATALOG:
        print(_card_text(CATALOG[source]), flush=True)
    encoder = source
    if not isinstance(source, Encoder):
        encoder = load_encoder(source, trust=trust)
    network = getattr(encoder, "network", None)
    found = Inspection(
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
        print(found)
    return found


def _facts(details: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if details.get("image_size"):
        facts.append(("pictures", f"{details['image_size']} pixels"))
    if details.get("pixels"):
        facts.append(("pixels", str(details["pixels"])))
    if details.get("vocabulary"):
        pieces = f"{len(details['vocabulary']):,} word pieces"
        case = "lower case" if details.get("lower_case") else "cased"
        facts.append(("vocabulary", f"{pieces}, {case}"))
    if details.get("preprocessor"):
        facts.append(("preprocessor", f" {details['preprocessor']}"))
    if details.get("licence"):
        facts.append(("licence", str(details["licence"])))
    if details.get("tried") is False:
        facts.append(("address", "never tried online by tlkit's makers"))
    return facts


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
        lines.append("address     never tried online by tlkit's makers")
    return "\n".join(lines)


def _spec_lines(label: str, specs: Any) -> list[str]:
    rows = specs.items() if isinstance(specs, dict) else [("", specs)]
    texts = [
        f"{key}: {describe(spec)}" if key else describe(spec) for key, spec in rows
    ]
    return [f"{label if i == 0 else '':<12}{text}" for i, text in enumerate(texts)]
