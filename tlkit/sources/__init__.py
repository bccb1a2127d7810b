"""Sources: from the string that a user types to a complete SavedModel on disk.

Comes in: a source, such as a folder, a name in the catalog, `https://…`, `gs://…` or
an archive. Goes out: a `Resolved` with the path of a verified folder (or the name of
a preset), and the encoder's card. No SavedModel is loaded here.

In the order in which a source passes them:

- `resolve`: detects the kind of source; returns the folder, fetched if necessary.
- `catalog`: short names of published encoders, and a card of facts for each.
- `download`: fetches from servers, buckets and Kaggle into the cache.
- `store`: unpacks safely, checks the SavedModel, locks and caches it.
- `fetching`: `tlkit fetch`, a locked copy for a machine without a network.

Words: a *source* is the string that names an encoder. A *handle* is its name at the
publisher or in the cache. A *card* holds facts about an encoder that are known without
loading it. A *lock* (`tlkit.lock`) lists source and digests of a folder's files. A
*bundle* is a folder with its lock in one `.tar`. The *shelf* is `saved_models/`.
"""

from ..files import cache_folder as cache_folder
from .catalog.cards import Card as Card
from .catalog.catalog import CATALOG as CATALOG
from .catalog.catalog import catalog_names as catalog_names
from .fetching import fetch as fetch
from .fetching import read_lock as read_lock
from .resolve import Resolved as Resolved
from .resolve import resolve as resolve
from .store.lock import Lock as Lock
