"""A name becomes a verified folder on disk."""

from .bundles import read_lock as read_lock
from .cache import cache_folder as cache_folder
from .cards import Card as Card
from .catalog import CATALOG as CATALOG
from .catalog import catalog_names as catalog_names
from .fetching import fetch as fetch
from .lock import Lock as Lock
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
