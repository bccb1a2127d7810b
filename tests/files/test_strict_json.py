import dataclasses
import json
import math

import numpy as np
import pytest

from tlkit.files import strict_json


@dataclasses.dataclass
class Point:
    x: float
    name: str | None = None


def test_values_become_strict_json():
    value = {
        1: Point(0.5, "é"),
        "nan": [math.nan, math.inf, -math.inf],
        "array": np.array([[1, 2]], np.int32),
        "scalar": np.float32(0.25),
        "other": {1},
    }
    text = strict_json.dump(value)
    assert json.loads(text, parse_constant=pytest.fail) == {
        "1": {"x": 0.5, "name": "é"},
        "nan": [None, None, None],
        "array": [[1, 2]],
        "scalar": 0.25,
        "other": "{1}",
    }
    assert "é" in text


def test_null_is_nan():
    assert math.isnan(strict_json.number(None))
    assert strict_json.number(3) == 3.0
