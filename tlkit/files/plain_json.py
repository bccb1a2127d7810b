"""Figures as valid JSON, and files that are written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def dump(value: Any) -> str:
    """Writes a value as JSON; dataclasses become objects.

    What is not a finite number becomes `null`: JSON knows neither NaN nor infinity, and
    most readers refuse the words that Python writes for them.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=1)


def number(value: float | None) -> float:
    """Reads a number that `dump` wrote: `null` is NaN."""
    return math.nan if value is None else float(value)


def write_whole(path: Path, text: str) -> None:
    """Writes a file beside its place and then moves it there.

    Raises:
        OSError: It cannot be written. What stood there is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(
        prefix=f".{path.name}.", dir=path.parent, text=True
    )
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp lets nobody else read; a report is a file like any other.
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _umask() -> int:
    # The only way to read it is to set it.
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
