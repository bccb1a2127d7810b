"""The catalog: short names of published encoders, and a card of facts for each.

- `cards`: the `Card`, and reading and writing it in a SavedModel's folder.
- `image_cards`, `text_cards`: the cards of all families. Add an encoder here.
- `catalog`: all cards by name.
"""

from .cards import Card as Card
from .cards import write_card as write_card
