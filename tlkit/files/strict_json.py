"""Values as strict JSON, which has neither NaN nor infinity."""

import dataclasses
import json
import math
from typing import Any

import numpy as np


def dump(value: Any) -> str:
    """Returns a value as JSON; dataclasses become objects.

    NaN and infinities become `null`, since most readers reject the words that Python
    writes for them.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=1)


def number(value: float | None) -> float:
    """Returns a number that `dump` wrote; `null` is NaN."""
    return math.nan if value is None else float(value)


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
