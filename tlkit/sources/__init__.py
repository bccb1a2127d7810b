"""A name becomes a verified folder on disk."""

from .cache import cache_folder as cache_folder
from .cards import Card as Card
from .catalog import CATALOG as CATALOG
from .catalog import catalog_names as catalog_names
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
