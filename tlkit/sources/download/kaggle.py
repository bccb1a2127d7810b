"""Models that kagglehub fetches, into its own cache."""

from __future__ import annotations

import os
import pathlib

from ...errors import SourceError, import_extra
from ..store.saved_model_check import check_saved_model
from .download_errors import OFFLINE, is_offline, refuse_network


def fetch_kaggle(handle: str) -> pathlib.Path:
    """Fetches a model with kagglehub, into kagglehub's own cache.

    kagglehub compares checksums itself while it downloads, and not later. Without a
    version in the handle it asks Kaggle for the latest each time; offline, the latest
    of its cache is taken.

    Args:
        handle: `owner/model/framework/variation`, with or without `/version`.

    Returns:
        The model's folder.

    Raises:
        SourceError: Kaggle does not have it or cannot be reached.
        ExtraError: kagglehub is not installed.
    """
    if is_offline():
        folder = _in_its_cache(handle)
        if folder is None:
            refuse_network(f"kaggle://{handle}")
    else:
        folder = _download(handle)
    check_saved_model(folder, full=False)
    return folder


def _download(handle: str) -> pathlib.Path:
    kagglehub = import_extra("kagglehub", "kaggle", "A kaggle:// source")
    try:
        return pathlib.Path(kagglehub.model_download(handle))
    # kagglehub lets requests' errors, its own and plain ones through.
    except Exception as error:
        raise SourceError(
            f"Kaggle did not give {handle!r}: {error}\nA handle is kaggle://owner/"
            "model/framework/variation[/version], as the model's page shows it. "
            f"{OFFLINE}"
        ) from error


def _in_its_cache(handle: str) -> pathlib.Path | None:
    """What kagglehub has finished: a folder with a marker `<version>.complete`."""
    kept = os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub"
    parts = handle.strip("/").split("/")
    models = pathlib.Path(kept).expanduser() / "models"
    if len(parts) == 5:
        folders = [models.joinpath(*parts)]
    else:
        found = models.joinpath(*parts).glob("*")
        folders = [path for path in found if path.name.isdecimal() and path.is_dir()]
    whole = [f for f in folders if f.with_name(f"{f.name}.complete").exists()]
    return max(whole, key=_version, default=None)


def _version(folder: pathlib.Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else 0
