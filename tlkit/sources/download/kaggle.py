"""Models that kagglehub downloads into its own cache.

Tested in tests/sources/download/test_offline.py.
"""

import os
import pathlib

from ...errors import SourceError, import_extra
from ...files import user_path
from ..store.saved_model_check import check_saved_model
from .download_errors import OFFLINE_HINT, is_offline, require_network


def fetch_kaggle(handle: str) -> pathlib.Path:
    """Downloads a model with kagglehub, into kagglehub's own cache.

    kagglehub compares checksums during the download only. If the handle has no version,
    kagglehub queries Kaggle for the latest one each time; offline, the latest one in
    its cache is used.

    Args:
        handle: `owner/model/framework/variation`, with or without `/version`.

    Returns:
        The model's folder.

    Raises:
        SourceError: Kaggle does not have it or cannot be reached.
        ExtraError: kagglehub is not installed.
    """
    if is_offline():
        folder = _in_kagglehub_cache(handle)
        if folder is None:
            require_network(f"kaggle://{handle}")
    else:
        folder = _download(handle)
    check_saved_model(folder, full=False)
    return folder


def _download(handle: str) -> pathlib.Path:
    kagglehub = import_extra("kagglehub", "kaggle", "A kaggle:// source")
    try:
        return pathlib.Path(kagglehub.model_download(handle))
    # kagglehub raises errors of the package `requests`, of its own and built-in ones.
    except Exception as error:
        raise SourceError(
            f"Kaggle did not return {handle!r}: {error}\nA handle is kaggle://owner/"
            "model/framework/variation[/version], as the model's page shows it. "
            f"{OFFLINE_HINT}"
        ) from error


def _in_kagglehub_cache(handle: str) -> pathlib.Path | None:
    """Returns the latest finished download, marked by a file `<version>.complete`."""
    cache = os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub"
    parts = handle.strip("/").split("/")
    models = user_path(cache) / "models"
    if len(parts) == 5:
        folders = [models.joinpath(*parts)]
    else:
        paths = models.joinpath(*parts).glob("*")
        folders = [path for path in paths if path.name.isdecimal() and path.is_dir()]
    finished = [f for f in folders if f.with_name(f"{f.name}.complete").exists()]
    return max(finished, key=_version, default=None)


def _version(folder: pathlib.Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else 0
