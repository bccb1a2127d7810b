"""Paths that users give: of runs, data, caches and exports."""

import os
import pathlib

from ..errors import DataError


def user_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a path with `~` replaced by the home folder.

    A relative path remains relative. A caller that uses the path for long makes it
    absolute at the start, since the process may change its working directory.

    Args:
        path: The path.

    Raises:
        DataError: It is a URL, or the home folder of `~name` is unknown.

    Example:
        >>> user_path("~/runs/1").relative_to(pathlib.Path.home())
        PosixPath('runs/1')
    """
    text = os.fspath(path)
    if "://" in text:
        raise DataError(
            f"A path on this machine's disk is needed; got {text!r}. Mount the bucket "
            "here, or use a local folder and copy its files."
        )
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError:
        raise DataError(
            f"The home folder in {text!r} is unknown. Type another path; './~…' if a "
            "name begins with ~."
        ) from None
