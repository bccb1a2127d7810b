"""Why something could not be fetched, in one line, and what to do, in one.

Whether the network may be touched, and what there is if it may not.
"""

from __future__ import annotations

import errno
import os
import urllib.error

from ...errors import SourceError
from ...files import cache_folder
from ..store.archives import UnsafeArchive
from ..store.source_cache import kept_addresses

# How to go on without a network; ends the errors.
OFFLINE = (
    "Without a network, fetch it elsewhere (tlkit fetch SOURCE DIRECTORY), and "
    "give its folder instead."
)


def explain(address: str, error: Exception, timeout: float | None) -> str:
    """Says what went wrong with a download, or with an archive on this machine.

    Args:
        address: What was fetched.
        error: What was raised.
        timeout: Seconds without a byte after which it was given up; `None` if it is
            on this machine.
    """
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{address}: there is no room for it: {error.strerror}. Free some, or have "
            "TLKIT_CACHE name a folder on another disk."
        )
    if isinstance(error, UnsafeArchive):
        return (
            f"{address}: its archive was refused: {error}. No SavedModel needs that; "
            "take it from its publisher."
        )
    if timeout is None:
        return f"{address}: it is damaged, or no archive of a SavedModel ({error})."
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            why = f"the server does not have it (HTTP {error.code}). Compare the handle"
            return f"{address}: {why} with the model's page."
        why = f"the server refused (HTTP {error.code} {error.reason})"
    elif isinstance(cause, TimeoutError):
        why = f"nothing came for {timeout:g} seconds"
    elif isinstance(error, urllib.error.URLError):
        why = f"no connection ({cause})"
    elif isinstance(error, (ConnectionError, FileNotFoundError)):
        why = str(error)
    else:
        why = f"the download broke off, or is not an archive of a SavedModel ({error})"
    return f"{address}: {why}. {OFFLINE}"


# === Offline ===


VARIABLE = "TLKIT_OFFLINE"
_LISTED = 8


def is_offline() -> bool:
    """Tells whether `TLKIT_OFFLINE` is set to anything but `0`."""
    return os.environ.get(VARIABLE, "").strip() not in ("", "0")


def refuse_network(what: str, hint: str = "") -> None:
    """Raises if the network may not be touched; called before anything does.

    Args:
        what: The source that is not in the cache.
        hint: How it can be had without a network, if not as a bundle.

    Raises:
        SourceError: `TLKIT_OFFLINE` is set. Says what the cache holds.
    """
    if not is_offline():
        return
    kept = kept_addresses()
    more = f", and {len(kept) - _LISTED} more" if len(kept) > _LISTED else ""
    there = ", ".join(kept[:_LISTED]) + more or "nothing that was fetched"
    way = hint or (
        "Where there is a network, type: tlkit fetch SOURCE FILE.tar --bundle, bring "
        "the file here, and give its path as the source."
    )
    raise SourceError(
        f"{what}: it is not here, and {VARIABLE} (--offline) forbids the network. In "
        f"the cache {cache_folder()} there is: {there}. {way} Or take {VARIABLE} away."
    )
