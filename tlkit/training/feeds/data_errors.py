"""Raises the errors of a user's data as they are, without TensorFlow's text.

TensorFlow wraps an error in a data pipeline into tens of lines that name its own ops.
Tested in tests/training/feeds/test_python_batches.py and test_label_check.py.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf

from .label_check import label_error

# The last error that a user's Python code raised in a pipeline, if any.
_RAISED: list[Exception] = []


def remembering_errors(function: Callable) -> Callable:
    """Wraps a pipeline's function, for `naming_data_errors` to raise its errors."""

    @functools.wraps(function)
    def remembering(*args):
        try:
            return function(*args)
        except StopIteration:
            raise
        except Exception as error:
            _RAISED[:] = [error]
            raise

    return remembering


@contextlib.contextmanager
def naming_data_errors() -> Iterator[None]:
    """Replaces an error of TensorFlow by the error of the data that caused it."""
    _RAISED.clear()
    try:
        yield
    except tf.errors.OpError as error:
        cause = label_error(error.message)
        if cause is None and _RAISED and type(_RAISED[0]).__name__ in error.message:
            cause = _RAISED[0]
        if cause is None:
            raise
        raise cause from None
    finally:
        _RAISED.clear()
