"""A name becomes a verified folder on disk."""

from ..files import cache_folder as cache_folder
from .catalog.cards import Card as Card
from .catalog.catalog import CATALOG as CATALOG
from .catalog.catalog import catalog_names as catalog_names
from .fetching import fetch as fetch
from .fetching import read_lock as read_lock
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
from .store.lock import Lock as Lock
