"""Whether the network may be touched, and what there is if it may not."""

from __future__ import annotations

import os

from ...errors import SourceError
from ...files.cache import cache_folder
from ..store.source_cache import kept_addresses

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
