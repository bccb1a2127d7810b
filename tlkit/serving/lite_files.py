"""Converts to LiteRT's files, and runs them."""

from __future__ import annotations

import importlib.util
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import ExportError, import_extra

_SIGNATURE = "serving_default"


def convert(
    model: keras.Model,
    function: Any,
    precision: str,
    calibration: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
) -> bytes:
    """Converts a function of a model to a LiteRT file.

    Args:
        model: The model whose variables the function reads.
        function: A concrete function with named inputs and a dict of outputs.
        precision: `"float16"` or `"int8"`.
        calibration: Gives inputs from which int8 learns the ranges of activations; if
            `None`, only the weights are int8.

    Returns:
        What is in the file. It has one signature, `serving_default`.

    Raises:
        ExportError: It cannot be converted; says which op is to blame.
    """
    served = tf.Module(name="small")
    served.weights = [variable.value for variable in model.variables]
    served.function = function
    with tempfile.TemporaryDirectory(prefix="tlkit-lite-") as folder:
        try:
            tf.saved_model.save(served, folder, signatures={_SIGNATURE: function})
            with warnings.catch_warnings():  # its own interpreter says that it will go
                warnings.simplefilter("ignore")
                return _converter(folder, precision, calibration).convert()
        except Exception as error:  # of several kinds, one of them private
            raise ExportError(_not_converted(precision, error)) from error


def _converter(folder: str, precision: str, calibration: Any) -> Any:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif calibration is not None:
        converter.representative_dataset = calibration
        only = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [only]
    return converter


def _not_converted(precision: str, error: Exception) -> str:
    ops = sorted(set(re.findall(r"\btf\.[A-Z]\w*", str(error))))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0].rstrip(".") if lines else type(error).__name__
    why = f"LiteRT has no {', '.join(ops)}" if ops else first
    return (
        f"The model cannot be converted to {precision}: {why}. Export it without lite=…"
    )


def runner(content: bytes) -> Callable[..., dict[str, np.ndarray]]:
    """What runs a LiteRT file: arrays by the names of inputs in, a dict of arrays out.

    Raises:
        ExtraError: Nothing here runs such files.
    """
    there = importlib.util.find_spec("ai_edge_litert") is not None
    if there or not hasattr(tf.lite, "Interpreter"):
        module = "ai_edge_litert.interpreter"
        lite = import_extra(module, "lite", "running a small model")
        interpreter = lite.Interpreter(model_content=content)
    else:
        with warnings.catch_warnings():  # it says that it will go, and when
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(model_content=content)
    return interpreter.get_signature_runner(_SIGNATURE)
