"""catalog: to be described."""

from .cards import Card as Card
from .cards import write_card as write_card
