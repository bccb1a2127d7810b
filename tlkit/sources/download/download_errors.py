"""The error messages of downloads, and the check whether the network is allowed.

Tested in tests/sources/download/test_offline.py.
"""

import errno
import os
import urllib.error

from ...errors import SourceError
from ...files import cache_folder
from ..store.archives import UnsafeArchive
from ..store.source_cache import cached_addresses

_VARIABLE = "TLKIT_OFFLINE"
_LISTED = 8

# The end of most error messages.
OFFLINE_HINT = (
    "Without a network, fetch it elsewhere (tlkit fetch SOURCE DIRECTORY), and "
    "give its folder instead."
)


def download_error_message(
    address: str, error: Exception, timeout: float | None
) -> str:
    """Returns the message for an error of a download, or of opening a local archive.

    Args:
        address: The address of the file.
        error: The error.
        timeout: The timeout of the download in seconds; `None` for a local file.
    """
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{address}: there is no room for it: {error.strerror}. Free disk space, "
            "or set TLKIT_CACHE to a folder on another disk."
        )
    if isinstance(error, UnsafeArchive):
        return (
            f"{address}: its archive was rejected: {error}. No SavedModel needs that; "
            "download it from its publisher."
        )
    if timeout is None:
        return f"{address}: it is damaged, or no archive of a SavedModel ({error})."
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            return (
                f"{address}: the server does not have it (HTTP {error.code}). Compare "
                "the handle with the model's page."
            )
        reason = f"the server refused (HTTP {error.code} {error.reason})"
    elif isinstance(cause, TimeoutError):
        reason = f"nothing came for {timeout:g} seconds"
    elif isinstance(error, urllib.error.URLError):
        reason = f"no connection ({cause})"
    elif isinstance(error, (ConnectionError, FileNotFoundError)):
        reason = str(error)
    else:
        reason = (
            f"the download broke off, or is not an archive of a SavedModel ({error})"
        )
    return f"{address}: {reason}. {OFFLINE_HINT}"


def is_offline() -> bool:
    """Returns whether `TLKIT_OFFLINE` is set to anything but `0`."""
    return os.environ.get(_VARIABLE, "").strip() not in ("", "0")


def require_network(name: str, hint: str = "") -> None:
    """Raises an error if `TLKIT_OFFLINE` is set. Call it before using the network.

    Args:
        name: The source that is not in the cache, for the message.
        hint: How to get the source without a network; by default, with a bundle.

    Raises:
        SourceError: `TLKIT_OFFLINE` is set. The message lists what the cache contains.
    """
    if not is_offline():
        return
    addresses = cached_addresses()
    hidden = len(addresses) - _LISTED
    more = f", and {hidden} more" if hidden > 0 else ""
    contents = ", ".join(addresses[:_LISTED]) + more or "nothing that was fetched"
    hint = hint or (
        "Where there is a network, type: tlkit fetch SOURCE FILE.tar --bundle, bring "
        "the file here, and give its path as the source."
    )
    raise SourceError(
        f"{name}: it is not here, and {_VARIABLE} (--offline) forbids the network. In "
        f"the cache {cache_folder()} there is: {contents}. {hint} Or unset {_VARIABLE}."
    )
