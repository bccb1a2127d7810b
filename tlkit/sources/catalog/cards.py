"""A card says what a published encoder is: where it is kept, and what it eats."""

from __future__ import annotations

import dataclasses
import json
import pathlib

# Inside a SavedModel; TensorFlow and TF Serving leave `assets.extra` alone.
CARD_FILE = "assets.extra/tlkit.json"


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known about an encoder without loading it.

    Attributes:
        name: Short name, such as `"resnet_v2_50"`.
        kind: `"image"` or `"text"`.
        tfhub: Handle on tfhub.dev, `publisher/path/version`, or None.
        kaggle: Handle on Kaggle, `owner/model/framework/variation/version`, or None.
        preset: Name of a keras-nlp preset, or None.
        image_size: Height and width in pixels that it was trained with, or None.
        pixels: The range of its pixels: `"unit"` is [0, 1], `"symmetric"` [-1, 1],
            `"byte"` [0, 255], `"caffe"` blue, green, red in [0, 255] less
            (103.94, 116.78, 123.68), `"torch"` red, green, blue in [0, 1] less
            ImageNet's mean and over its deviation, and `"none"` where it takes text.
        preprocessor: Source of the SavedModel that makes its tokens, or None. One that
            begins with `./` or `../` is a path from the encoder's own folder.
        licence: SPDX identifier, or `""` where not known.
        tried: Whether somebody has loaded it from where it says.
        note: What else a user should know, or `""`.
    """

    name: str
    kind: str
    tfhub: str | None = None
    kaggle: str | None = None
    preset: str | None = None
    image_size: int | None = None
    pixels: str = "none"
    preprocessor: str | None = None
    licence: str = ""
    tried: bool = False
    note: str = ""

    def to_json(self) -> str:
        """Returns the card as a JSON object, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Reads what `to_json` wrote; fields that this version lacks are left out.

        Raises:
            ValueError: The text is not a JSON object with a name and a kind.
        """
        fields = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or not {"name", "kind"} <= fields.keys():
            raise ValueError("A card is a JSON object with at least name and kind.")
        return cls(**{key: fields[key] for key in fields.keys() & known})


def read_card(folder: pathlib.Path) -> Card | None:
    """Reads the card that a SavedModel carries, or None where there is no good one."""
    try:
        return Card.from_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_card(folder: pathlib.Path, card: Card) -> None:
    """Puts a card into a SavedModel's folder."""
    path = folder / CARD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.to_json() + "\n", encoding="utf-8")
