"""Imports tensorflow-hub, with which tests and benchmarks compare."""

from __future__ import annotations

import sys
import types
import warnings
from types import ModuleType

from packaging import version


def import_tensorflow_hub() -> ModuleType:
    """Imports tensorflow-hub, with a stand-in for `pkg_resources` if that is missing.

    tensorflow-hub 0.16.1, the last release, imports `parse_version` from
    `pkg_resources`, which setuptools 82 removed:
    https://github.com/tensorflow/hub/issues/934. It also imports tf_keras. `tlkit`
    itself fetches and loads modules without it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_missing = not _has_pkg_resources()
        if is_missing:
            stand_in = types.ModuleType("pkg_resources")
            stand_in.parse_version = version.parse
            sys.modules["pkg_resources"] = stand_in
        try:
            import tensorflow_hub
        finally:
            if is_missing:
                del sys.modules["pkg_resources"]
    return tensorflow_hub


def _has_pkg_resources() -> bool:
    try:
        import pkg_resources as pkg_resources
    except ModuleNotFoundError:
        return False
    return True
