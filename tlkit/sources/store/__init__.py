"""Model folders on disk: unpacked safely, checked, locked and cached.

Comes in: an archive or a folder. Goes out: a folder that is known to be a complete
SavedModel with unchanged files.

- `archives`: unpacks a tar; rejects path traversal, links, decompression bombs.
- `saved_model_check`: verifies that a folder is a complete SavedModel.
- `lock`: `tlkit.lock`, the source of a folder and the digests of its files.
- `source_cache`: the entries of fetched models in the user's cache folder.
"""

from .archives import UnsafeArchive as UnsafeArchive
from .archives import path_inside as path_inside
from .saved_model_check import check_saved_model as check_saved_model
from .saved_model_check import is_saved_model as is_saved_model
from .saved_model_check import parse_saved_model as parse_saved_model
