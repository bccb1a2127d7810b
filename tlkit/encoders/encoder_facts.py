"""The facts that a source states about its encoder.

Tested in tests/models/test_two_models_over_one_encoder.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# Options of a text model. tlkit 0.1 stored them among the facts of its encoder.
PACKING_OPTIONS = ("length", "truncation", "pairs", "windows", "overlap")


@dataclasses.dataclass(frozen=True)
class EncoderFacts:
    """The facts that a source states about its encoder.

    They are set on loading and never change. Options of a model that uses the encoder,
    such as the length of its texts, are stored in that model's layers.

    Attributes:
        name: The source's name, such as `"resnet_v2_50"`; `None` if it has none.
        kind: `"image"`, `"text"` or `None` (unknown).
        image_size: Height and width in pixels of the training images, or `None`.
        pixels: Range of the pixel values that the encoder was trained with, see
            `tlkit.models.Pixels`; `None` if unknown.
        preprocessor: Source of the SavedModel that turns strings into token ids, or
            `None`.
        vocabulary: The word pieces in the order of their ids; empty if the encoder has
            none.
        lower_case: Whether the vocabulary is for lower-case text without accents.
        licence: SPDX identifier, or `None` or `""` if unknown.
        tried: Whether the source's address in the catalog was tested online; `None` if
            it is not in the catalog.
        output: Name of the output that the encoder was loaded for; `None` if it was not
            loaded for exactly one.
        preset: Name of the keras-nlp preset, or `None`.
        takes_training: Whether training and inference run different functions.
        host_ops: Types of its ops that run on a CPU only (strings, tables, Python).
        file_ops: Types of its ops that use files, connect to other machines or run
            Python.
    """

    name: str | None = None
    kind: str | None = None
    image_size: int | None = None
    pixels: str | None = None
    preprocessor: str | None = None
    vocabulary: tuple[str, ...] = ()
    lower_case: bool = True
    licence: str | None = None
    tried: bool | None = None
    output: str | None = None
    preset: str | None = None
    takes_training: bool = True
    host_ops: tuple[str, ...] = ()
    file_ops: tuple[str, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """Returns the facts as a dict of JSON values."""
        config = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderFacts:
        """Builds the facts from the result of `to_config`; ignores unknown keys."""
        names = {field.name for field in dataclasses.fields(cls)} & config.keys()
        values = {name: config[name] for name in names}
        return cls(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        )
