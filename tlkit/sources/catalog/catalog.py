"""Short names of published encoders, and what is known about each.

From the model pages (github.com/tensorflow/tfhub.dev) and from public code that loads
them; nobody has tried these handles online from here, so `tried` is False throughout.
Where no public code shows how Kaggle names a family, its handles there are None: the
names follow no rule that always holds, nor do the versions (TF Hub's 5 may be 1 or 2).
"""

from __future__ import annotations

from .cards import Card
from .image_cards import image_cards
from .text_cards import text_cards

CATALOG: dict[str, Card] = {
    card.name: card for cards in (image_cards(), text_cards()) for card in cards
}


def catalog_names(kind: str | None = None) -> tuple[str, ...]:
    """Returns the short names in the catalog.

    Args:
        kind: `"image"`, `"text"`, `"preprocessor"` (makes tokens for the text
            encoders), or None for all.

    Returns:
        The names, family by family.
    """
    return tuple(
        card.name for card in CATALOG.values() if kind is None or card.kind == kind
    )
