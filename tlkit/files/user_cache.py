"""The user's cache folder, which holds downloads, activations and sample data."""

import os
import pathlib

import platformdirs

from .user_paths import user_path


def cache_folder() -> pathlib.Path:
    """Returns the cache folder of the user; it need not exist yet.

    It is `TLKIT_CACHE` from the environment, or else the user's cache folder of the
    operating system, such as `~/.cache/tlkit`.
    """
    from_environment = os.environ.get("TLKIT_CACHE")
    if from_environment:
        return user_path(from_environment).absolute()
    return pathlib.Path(platformdirs.user_cache_dir("tlkit", appauthor=False))
