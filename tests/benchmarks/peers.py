"""Where benchmarks keep networks, and environments of peers that we do not need."""

from __future__ import annotations

import pathlib
import subprocess
import venv
from collections.abc import Sequence


def cache() -> pathlib.Path:
    """The folder of the benchmarks, beside the cache of samples."""
    import platformdirs

    folder = pathlib.Path(platformdirs.user_cache_dir("tlkit")) / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(name: str, packages: Sequence[str]) -> str:
    """The interpreter of a peer's own environment, made where it is missing.

    Args:
        name: The environment's name.
        packages: What pip installs there.

    Returns:
        The interpreter's path.
    """
    folder = cache() / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", *packages]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    return str(python)
