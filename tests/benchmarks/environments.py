"""Environments of their own for the peers, kept beside the cache of samples."""

from __future__ import annotations

import pathlib
import subprocess
import venv
from collections.abc import Sequence

TRANSFORMERS = (
    "torch==2.13.0",
    "transformers>=4.50",
    "accelerate>=1.1",
    "numpy",
    "platformdirs",
)


def cache() -> pathlib.Path:
    """Where benchmarks keep what is made once."""
    import platformdirs

    folder = pathlib.Path(platformdirs.user_cache_dir("tlkit")) / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(name: str, packages: Sequence[str]) -> str:
    """The interpreter of an environment, made where it is missing or has others.

    Args:
        name: Its name.
        packages: What pip installs into it.

    Returns:
        The path of its interpreter.
    """
    folder = cache() / name
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        venv.create(folder, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "-q", *packages]
        subprocess.run(command, check=True)
        ready.write_text(wanted)
    return str(python)
