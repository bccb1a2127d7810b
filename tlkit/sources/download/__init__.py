"""Downloads of SavedModels into the cache, or into kagglehub's own cache.

Comes in: an address. Goes out: the folder of a complete SavedModel in the cache.
Nothing is downloaded twice, and nothing at all with `TLKIT_OFFLINE=1`.

- `download`: fetches an address, a bucket or a local archive into a cache entry.
- `http`: transfers one file over HTTP; compares the digests that the server sends.
- `kaggle`: `kaggle://` handles, fetched with kagglehub.
- `download_errors`: the error messages, and the check whether the network is allowed.
"""

from .download_errors import require_network as require_network
