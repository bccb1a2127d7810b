"""The public names are those of the design, and each is documented."""

import dataclasses
import importlib
import inspect
import sys
import types

import pytest

import tlkit
from tests import forked

PUBLIC = sorted(
    name
    for name, value in vars(tlkit).items()
    if not name.startswith("_") and not isinstance(value, types.ModuleType)
)
NAMES = [(tlkit, name) for name in PUBLIC]
NAMES += [
    (getattr(tlkit, package), name)
    for package in ("data", "samples")
    for name, value in vars(getattr(tlkit, package)).items()
    if not name.startswith("_") and callable(value)
]


# `build_model` raises the errors of the classifiers that it calls.
RAISES_NOTHING = ("build_model", "head_only", "names")


def test_the_names_of_data_are_those_of_the_design():
    names = {name for package, name in NAMES if package is tlkit.data}
    assert sorted(names) == [
        "Augmentation",
        "Color",
        "Skipped",
        "SkippedWarning",
        "Splits",
        "arrays",
        "balanced",
        "batches",
        "class_counts",
        "class_weights",
        "image_folder",
        "mixture",
        "stratified_split",
        "take_per_class",
        "text_csv",
        "text_folder",
        "tfds",
        "tfrecord_files",
        "tfrecords",
        "write_shards",
    ]


def test_the_public_names_are_those_of_the_design():
    assert PUBLIC == [
        "ActivationCache",
        "Block",
        "Checkpoints",
        "Encoder",
        "Phase",
        "Plan",
        "build_model",
        "evaluate",
        "export",
        "find_learning_rate",
        "fit",
        "freeze",
        "gradual",
        "head_only",
        "head_then_all",
        "image_classifier",
        "inspect",
        "load_encoder",
        "plan",
        "predict",
        "publish",
        "strategy",
        "tap",
        "text_classifier",
    ]
    assert tlkit.__version__


@pytest.mark.parametrize("package, name", NAMES, ids=lambda value: str(value)[:30])
def test_every_public_name_is_documented(package, name):
    value = getattr(package, name)
    text = inspect.getdoc(value)
    assert text and text.splitlines()[0].strip()
    # The fields of the samples are described in the first line.
    if dataclasses.is_dataclass(value) and package is not tlkit.samples:
        assert "Args:" in text or "Attributes:" in text
        for field in dataclasses.fields(value):
            assert f"{field.name}:" in text, (name, field.name)
    if inspect.isfunction(value):
        assert "Returns:" in text
        assert name in RAISES_NOTHING or "Raises:" in text
        parameters = inspect.signature(value).parameters.values()
        assert not parameters or "Example:" in text
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert f"{parameter.name}:" in text, (name, parameter.name)
            assert parameter.annotation is not parameter.empty, (name, parameter.name)


@pytest.mark.parametrize("package, name", NAMES, ids=lambda value: str(value)[:30])
def test_at_most_two_positional_nouns(package, name):
    value = getattr(package, name)
    if not inspect.isfunction(value):
        return
    parameters = inspect.signature(value).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    # These take x and y as Keras's own `fit` and `evaluate` do.
    with_data = ("fit", "evaluate", "find_learning_rate")
    assert len(positional) <= (3 if name in with_data else 2)


def test_every_error_is_a_tlkit_error_and_a_builtin():
    errors = importlib.import_module("tlkit.errors")
    found = [v for v in vars(errors).values() if isinstance(v, type)]
    found = [v for v in found if v.__module__ == errors.__name__]
    found.remove(errors.TlkitError)
    assert len(found) == 7
    for error in found:
        assert issubclass(error, errors.TlkitError)
        assert any(base.__module__ == "builtins" for base in error.__bases__)


def test_importing_starts_and_sets_nothing():
    code = (
        "import logging, os, sys; before = dict(os.environ);"
        "import tensorflow as tf, keras; policy = keras.config.dtype_policy().name;"
        "loaded = set(sys.modules); import tlkit;"
        "heavy = {'tensorflow_text', 'tensorflow_hub', 'tf_keras', 'keras_nlp',"
        "'kagglehub', 'matplotlib', 'onnx', 'pandas'};"
        "new = heavy & (set(sys.modules) - loaded); assert not new, new;"
        "assert keras.config.dtype_policy().name == policy;"
        "from tensorflow.python.eager import context;"
        "assert not context.context()._initialized"
    )
    done = forked.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
