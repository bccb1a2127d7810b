"""Converts `fit`'s arrays, lists, nests and tables into columns of one length.

Tested in tests/training/feeds/test_input_arrays.py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError
from .feed import Options


@dataclasses.dataclass(frozen=True)
class Columns:
    """Examples as arrays that have one row for each example.

    Attributes:
        inputs: An array, or a nest of tuples and dicts of arrays.
        labels: Likewise an array or a nest.
        weights: () for none, or a float32 array or a nest of them.
        raw: Whether the inputs are raw examples, such as texts, of a model of tlkit.
    """

    inputs: Any
    labels: Any
    weights: Any
    raw: bool = False

    def __len__(self) -> int:
        return len(tf.nest.flatten((self.inputs, self.labels))[0])

    def rows(self, start: int, stop: int) -> Columns:
        """Returns the examples from `start` to before `stop`."""
        parts = (self.inputs, self.labels, self.weights)
        parts = tf.nest.map_structure(lambda array: array[start:stop], parts)
        return Columns(*parts, raw=self.raw)

    def split(self, fraction: float) -> tuple[Columns, Columns]:
        """Splits off the last fraction of the examples, as Keras's `validation_split`.

        Raises:
            DataError: One of the parts would be empty.
        """
        valid = isinstance(fraction, (float, np.floating)) and 0 < fraction < 1
        if not valid:
            raise DataError(
                f"validation_split must be a number above 0 and below 1; got "
                f"{fraction!r}."
            )
        count = len(self)
        first = math.floor(count * (1 - fraction))
        if first in (0, count):
            raise DataError(
                f"validation_split={fraction!r} of {count} examples leaves none to "
                f"{'train on' if first == 0 else 'validate with'}. Give another "
                "fraction, or validation_data=(x, y)."
            )
        return self.rows(0, first), self.rows(first, count)


def columns_of(x: Any, y: Any, weights: Any, options: Options) -> Columns:
    """Converts what Keras's `fit` takes as arrays into `Columns`.

    Args:
        x: An array, a tensor, a table of pandas, or a nest of them (lists, tuples and
            dicts). For a model of tlkit: raw examples, or a dict or tuple of inputs.
        y: The labels, likewise; or the names of labels.
        weights: `None`; or `[n]`, `[n, 1]` or `[n, steps]`; or a nest like `y`.
        options: How the examples become batches.

    Raises:
        DataError: They are neither numbers nor strings, or their lengths differ.
    """
    if y is None:
        raise DataError(
            "y is missing: give the labels of the examples in x, or tlkit.data.Splits "
            "or a tf.data.Dataset that brings them. Received: x of "
            f"{type(x).__name__}."
        )
    in_parts = isinstance(x, dict) or isinstance(x, tuple) and _is_nest(x)
    raw = options.preprocess is not None and not in_parts
    inputs = _array(x, "x") if raw else _nest(x, "x")
    labels = _labels(y, options)
    weights = _weights(weights, labels)
    parts = {"x": inputs, "y": labels, "sample_weight": weights}
    for name, part in parts.items():
        if any(array.ndim == 0 for array in tf.nest.flatten(part)):
            raise DataError(f"{name} must have one entry for each example.")
    sizes = {k: {len(a) for a in tf.nest.flatten(part)} for k, part in parts.items()}
    distinct = set().union(*sizes.values())
    if len(distinct) != 1:
        lengths = "; ".join(
            f"{name} {', '.join(map(str, sorted(each)))}"
            for name, each in sizes.items()
            if each
        )
        raise DataError(
            "x, y and the weights must have one entry for each example. Their lengths: "
            f"{lengths}."
        )
    if distinct == {0}:
        raise DataError("x has no examples.")
    return Columns(inputs, labels, weights, raw=raw)


def as_tuples(nest: Any) -> Any:
    """Returns a nest with tuples in place of lists of arrays, as Keras's `fit` does."""
    if isinstance(nest, dict):
        return {key: as_tuples(part) for key, part in nest.items()}
    return tuple(map(as_tuples, nest)) if _is_nest(nest) else nest


def _is_nest(value: Any) -> bool:
    """Returns whether a value is a dict, list or tuple of arrays, not one array."""
    if isinstance(value, dict):
        return True
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(len(getattr(v, "shape", ())) > 0 or _is_nest(v) for v in value)


def _nest(value: Any, name: str) -> Any:
    convert = lambda leaf: _array(leaf, name, column=True)
    if not _is_nest(value):
        return convert(value)
    if isinstance(value, dict):
        return {key: _nest(part, name) for key, part in value.items()}
    return tuple(_nest(part, name) for part in value)


def _array(value: Any, name: str, *, column: bool = False) -> np.ndarray:
    """Converts numbers or strings to an array, and float64 to float32.

    Args:
        value: What NumPy makes an array of, a tensor, or a table of pandas.
        name: Its name in messages.
        column: Whether a pandas Series becomes a column `[n, 1]`, as in Keras.
    """
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)) or hasattr(value, "tocoo"):
        dense = ".to_tensor()" if isinstance(value, tf.RaggedTensor) else ""
        dense = dense or ("tf.sparse.to_dense" if tf.is_tensor(value) else ".toarray()")
        raise DataError(
            f"{name} is a {type(value).__name__}, and fit takes dense arrays. Type "
            f"{dense} to make it one."
        )
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
        return np.asarray([text.encode() for text in value], object)
    try:
        array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
    except ValueError as error:
        raise DataError(f"The examples in {name} differ in shape: {error}") from error
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    if array.dtype.kind == "O":
        return _strings(array, name)
    if array.dtype.kind not in "biufcSV":
        raise DataError(f"{name} must be numbers or texts; got {array.dtype}.")
    # Compared by name, so that pandas need not be imported.
    if column and type(value).__name__ == "Series" and array.ndim == 1:
        array = array[:, np.newaxis]
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _strings(array: np.ndarray, name: str) -> np.ndarray:
    """Encodes an array of Python strings as UTF-8."""
    wrong = next((v for v in array.flat if not isinstance(v, (str, bytes))), None)
    if wrong is not None:
        raise DataError(
            f"{name} must be numbers or texts; it has one of type "
            f"{type(wrong).__name__}: {wrong!r:.80}. Of a table, select the "
            'columns of numbers, or convert them: table.astype("float32").'
        )
    encode = lambda text: text.encode() if isinstance(text, str) else text
    encoded = np.empty(array.shape, object)
    encoded.flat = [encode(text) for text in array.flat]
    return encoded


def _labels(y: Any, options: Options) -> Any:
    if options.label_index is None:
        labels = _nest(y, "y")
        if any(array.dtype.kind in "OS" for array in tf.nest.flatten(labels)):
            raise DataError(
                "y holds names of labels, but this model has none. Give indices."
            )
        return labels
    y = _array(y, "y")
    if y.dtype.kind in "OS":
        names = [name.decode() for name in y.reshape(-1)]
        return np.asarray([options.label_index(name) for name in names], np.int32)
    if y.dtype.kind in "biu" and y.ndim > 1 and y.shape[-1] == options.classes > 1:
        return y.astype(np.float32)  # one-hot rows
    return y.astype(np.int32) if y.dtype == bool else y


def _weights(weights: Any, labels: Any) -> Any:
    """Returns the weights in the structure of the labels, or ()."""
    if weights is None:
        return ()
    if not _is_nest(weights):
        weights = _weight_array(weights)
        by_example = weights.ndim == 1 or weights.ndim == 2 and weights.shape[1] == 1
        if not by_example and tf.nest.is_nested(labels):
            raise DataError(
                "One sample_weight for several outputs must be [n]; got "
                f"{list(weights.shape)}. Give one for each output, as in y."
            )
        return tf.nest.map_structure(lambda _: weights, labels)
    weights = as_tuples(weights)
    if isinstance(weights, tuple) and len(weights) == 1 and not _is_nest(labels):
        return _weight_array(weights[0])
    try:
        tf.nest.assert_same_structure(labels, weights)
    except (TypeError, ValueError):
        raise DataError(
            "A sample_weight for each output must have the structure of y: "
            f"{_shapes(labels)}. Received: {_shapes(weights)}."
        ) from None
    return tf.nest.map_structure(_weight_array, weights)


def _weight_array(weights: Any) -> np.ndarray:
    array = _array(weights, "sample_weight")
    if array.dtype.kind not in "biuf":
        raise DataError(f"sample_weight must be numbers; got {array.dtype}.")
    return array.astype(np.float32)


def _shapes(nest: Any) -> Any:
    return tf.nest.map_structure(lambda array: list(np.shape(array)), nest)
