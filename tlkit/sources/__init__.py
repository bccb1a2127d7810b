"""A name becomes a verified folder on disk."""

from .cache import cache_folder as cache_folder
from .cards import Card as Card
