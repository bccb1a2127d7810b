"""Cards: facts about a published encoder that are known without loading it.

Tested in tests/sources/test_resolve.py.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

# In a SavedModel's folder; TensorFlow and TF Serving ignore `assets.extra`.
CARD_FILE = "assets.extra/tlkit.json"


@dataclasses.dataclass(frozen=True)
class Card:
    """Facts about an encoder: its addresses and its inputs.

    Attributes:
        name: Short name, such as `"resnet_v2_50"`.
        kind: `"image"`, `"text"` or `"preprocessor"`.
        tfhub: Handle on tfhub.dev, `publisher/path/version`, or None.
        kaggle: Handle on Kaggle, `owner/model/framework/variation/version`, or None.
        preset: Name of a keras-nlp preset, or None.
        image_size: Height and width in pixels of the training images, or None.
        pixels: The range of its pixels: `"unit"` is [0, 1], `"symmetric"` [-1, 1],
            `"byte"` [0, 255], `"caffe"` blue, green, red in [0, 255] minus
            (103.94, 116.78, 123.68), `"torch"` red, green, blue in [0, 1] minus
            ImageNet's mean, divided by its deviation, and `"none"` for text.
        preprocessor: Source of the SavedModel that tokenizes its texts, or None. One
            that begins with `./` or `../` is relative to the encoder's folder.
        licence: SPDX identifier, or `""` if unknown.
        tried: Whether somebody has loaded it from these addresses.
        note: A hint for the user, or `""`.
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
        """Returns the card as a JSON object, with one line for each field."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Returns the card that `to_json` wrote; ignores unknown fields.

        Raises:
            ValueError: The text is not a JSON object with a name and a kind.
        """
        fields = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or not {"name", "kind"} <= fields.keys():
            raise ValueError("A card is a JSON object with at least name and kind.")
        return cls(**{key: fields[key] for key in fields.keys() & known})


def read_card(folder: pathlib.Path) -> Card | None:
    """Returns the card in a SavedModel's folder, or None if missing or damaged."""
    try:
        return Card.from_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_card(folder: pathlib.Path, card: Card) -> None:
    """Writes a card into a SavedModel's folder."""
    path = folder / CARD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card.to_json() + "\n", encoding="utf-8")
