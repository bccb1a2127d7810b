"""The one place where tensorflow-hub is imported."""

from __future__ import annotations

import sys
import types
import warnings
from types import ModuleType

from packaging import version


def import_tensorflow_hub() -> ModuleType:
    """Imports tensorflow-hub, with a stand-in for `pkg_resources` where that is gone.

    tensorflow-hub 0.16.1, the last release, takes `parse_version` from
    `pkg_resources`, which setuptools has dropped in version 82:
    https://github.com/tensorflow/hub/issues/934. It also imports tf_keras. Only what
    is compared with it needs it: tlkit fetches and loads by itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lacking = not _has_pkg_resources()
        if lacking:
            stand_in = types.ModuleType("pkg_resources")
            stand_in.parse_version = version.parse
            sys.modules["pkg_resources"] = stand_in
        try:
            import tensorflow_hub
        finally:
            if lacking:
                del sys.modules["pkg_resources"]
    return tensorflow_hub


def _has_pkg_resources() -> bool:
    try:
        import pkg_resources as pkg_resources
    except ModuleNotFoundError:
        return False
    return True
