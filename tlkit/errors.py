"""Every error that tlkit raises on purpose.

    TlkitError
    ├── SourceError    (OSError)       an encoder could not be found, fetched or read
    ├── EncoderError   (ValueError)    a model cannot be used as an encoder, or not so
    ├── PlanError      (ValueError)    a schedule does not fit the model
    ├── DataError      (ValueError)    files or labels are not what they should be
    ├── TrainingError  (RuntimeError)  training had to stop
    ├── ExportError    (OSError)       a served model could not be written
    └── ExtraError     (ImportError)   an optional dependency is missing

Each is also the built-in error in brackets.
Each message says what is allowed, what came, what there is, and what to type.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class TlkitError(Exception):
    """The base of every error that tlkit raises on purpose."""


class SourceError(TlkitError, OSError):
    """An encoder could not be found, fetched or read."""


class EncoderError(TlkitError, ValueError):
    """A model cannot be used as an encoder, or not in this way."""


class PlanError(TlkitError, ValueError):
    """A schedule does not fit the model."""


class DataError(TlkitError, ValueError):
    """Files, texts or labels are not what they should be."""


class TrainingError(TlkitError, RuntimeError):
    """Training had to stop."""


class ExportError(TlkitError, OSError):
    """A served model could not be written or does not answer as it should."""


class ExtraError(TlkitError, ImportError):
    """An optional dependency is missing."""


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional dependency, or says which extra brings it.

    Args:
        module: Name of the module to import, such as `"kagglehub"`.
        extra: Name of the extra of `tlkit` that installs it.
        purpose: What needs it, for the message, such as `"kaggle:// sources"`.

    Returns:
        The imported module.

    Raises:
        ExtraError: The module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ExtraError(
            f"{purpose} needs the package `{module}`, which is not installed. "
            f'Type: pip install "tlkit[{extra}]"'
        ) from error
