"""The errors of tlkit.

    TlkitError
    ├── SourceError    (OSError)       an encoder could not be found, fetched or read
    ├── EncoderError   (ValueError)    a model cannot be used as an encoder
    ├── PlanError      (ValueError)    a schedule does not fit the model
    ├── DataError      (ValueError)    files, texts or labels are invalid
    ├── TrainingError  (RuntimeError)  training had to stop
    ├── ExportError    (OSError)       a served model could not be written
    └── ExtraError     (ImportError)   an optional dependency is missing

Each class also inherits from the built-in error in brackets. A message states what is
allowed, what was received, what exists, and what to type.

Tested in tests/test_errors.py.
"""

import importlib
from types import ModuleType


class TlkitError(Exception):
    """The base class of all errors of tlkit."""


class SourceError(TlkitError, OSError):
    """An encoder could not be found, fetched or read."""


class EncoderError(TlkitError, ValueError):
    """A model cannot be used as an encoder, or not with the given options."""


class PlanError(TlkitError, ValueError):
    """A schedule does not fit the model."""


class DataError(TlkitError, ValueError):
    """Files, texts or labels are invalid."""


class TrainingError(TlkitError, RuntimeError):
    """Training had to stop."""


class ExportError(TlkitError, OSError):
    """A served model could not be written, or its outputs are wrong."""


class ExtraError(TlkitError, ImportError):
    """An optional dependency is missing."""


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports an optional dependency.

    Args:
        module: Name of the module to import, such as `"kagglehub"`.
        extra: Name of the extra of `tlkit` that installs it.
        purpose: What needs the module, such as `"A kaggle:// source"`, for the message.

    Returns:
        The module.

    Raises:
        ExtraError: The module is not installed. The message names the extra.
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
