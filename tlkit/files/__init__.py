"""Files: atomic writes, digests, strict JSON and the user's cache folder.

Comes in: paths and values. Goes out: files and folders that are complete or absent.
Every other package may use these modules.

- `atomic`: writes a file or folder under a temporary name and renames it into place;
  removes the leftovers of killed processes. It is the only module that does so.
- `digests`: the SHA-256 of files, and which files of a folder changed.
- `strict_json`: values as JSON without NaN or infinity.
- `termination`: makes SIGTERM an exception, so that temporary files are removed.
- `user_cache`: where the cache folder is (`TLKIT_CACHE`).
- `user_paths`: replaces `~` in the paths that users give.

Words: a *staging* folder is a temporary folder with the same parent as a destination
(`.tlkit-staging-…`). A *digest* is a SHA-256 in hexadecimal. A *list of digests* has
size and digest of every file in a folder.
"""

from . import strict_json as strict_json
from .atomic import atomic_file as atomic_file
from .atomic import atomic_folder as atomic_folder
from .atomic import move_into_place as move_into_place
from .atomic import remove as remove
from .atomic import staging as staging
from .digests import damages as damages
from .digests import describe_files as describe_files
from .digests import sha256_of as sha256_of
from .termination import exit_on_sigterm as exit_on_sigterm
from .user_cache import cache_folder as cache_folder
from .user_paths import user_path as user_path
