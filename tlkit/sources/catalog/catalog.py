"""All cards by name.

The handles come from the model pages (github.com/tensorflow/tfhub.dev) and from public
code that loads the models. They were not tried online, so `tried` is False throughout.
Kaggle's names and versions follow no rule (TF Hub's version 5 may be 1 or 2 there), so
a handle on Kaggle is None unless public code shows it.
"""

from .cards import Card
from .image_cards import image_cards
from .text_cards import text_cards

CATALOG: dict[str, Card] = {
    card.name: card for cards in (image_cards(), text_cards()) for card in cards
}


def catalog_names(kind: str | None = None) -> tuple[str, ...]:
    """Returns the short names in the catalog.

    Args:
        kind: `"image"`, `"text"`, `"preprocessor"` (tokenizes for the text encoders),
            or None for all.

    Returns:
        The names, grouped by family.

    Example:
        >>> tlkit.sources.catalog_names("text")[:2]
        ('bert_en_uncased', 'bert_en_uncased_large')
    """
    return tuple(
        card.name for card in CATALOG.values() if kind is None or card.kind == kind
    )
