"""Reads a SavedModel from a folder and finds out how it wants to be called."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ..errors import EncoderError, SourceError, import_extra


@dataclasses.dataclass(frozen=True)
class Restored:
    """A SavedModel in memory, with the functions that an encoder needs.

    Args:
        module: What `tf.saved_model.load` gave.
        path: The folder it came from.
        functions: The function for inference under `False`, the one for training
            under `True`; the same one where the module does not tell them apart.
        takes_training: Whether the module tells training from inference.
        inputs: Nest of `tf.TensorSpec` of the first argument.
        outputs: Nest of `tf.TensorSpec` of what the functions return.
        variables: All variables that the functions read or write.
        learnable: Positions in `variables` of those that the module says may be
            trained.
        output: Name of the output that is wanted, or names; all of them if `None`.
        selected: Positions of the wanted outputs among the flattened ones.
    """

    module: Any
    path: pathlib.Path
    functions: dict[bool, Any]
    takes_training: bool
    inputs: Any
    outputs: Any
    variables: tuple[tf.Variable, ...]
    learnable: frozenset[int]
    selected: tuple[int, ...]
    output: str | Sequence[str] | None = None


def read_saved_model(path: pathlib.Path) -> Restored:
    """Loads a reusable SavedModel.

    Args:
        path: Folder with a `saved_model.pb`.

    Returns:
        The module and its functions.

    Raises:
        SourceError: TensorFlow cannot load the folder.
        EncoderError: The module is not in the reusable form: it has signatures only.
        ExtraError: It holds ops of TF Text and TF Text is not installed.
    """
    module = _load(path)
    functions = _functions(module, path)
    by_training = _by_training(functions)
    inference = by_training[False]
    variables = _variables(module, by_training.values())
    listed = getattr(module, "trainable_variables", None)
    allowed = {id(v) for v in variables if v.trainable}
    if listed is not None and len(listed):
        allowed = {id(v) for v in listed}
    return Restored(
        module=module,
        path=path,
        functions=by_training,
        takes_training=by_training[False] is not by_training[True],
        inputs=_first_argument(inference),
        outputs=inference.structured_outputs,
        variables=variables,
        learnable=frozenset(i for i, v in enumerate(variables) if id(v) in allowed),
        selected=tuple(range(len(tf.nest.flatten(inference.structured_outputs)))),
    )


def _load(path: pathlib.Path):
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if "Op type not registered" not in str(error):
            raise SourceError(
                f"TensorFlow cannot load the SavedModel in {path}: {_first(error)} "
                "Fetch it again, or give another source."
            ) from error
    # Tokenizers' ops are registered by importing TF Text, before loading.
    import_extra("tensorflow_text", "text", f"the SavedModel in {path}")
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise SourceError(
            f"The SavedModel in {path} holds an op that neither TensorFlow nor TF Text "
            f"knows: {_first(error)}"
        ) from error


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] + "." if lines else type(error).__name__ + "."


def _functions(module, path: pathlib.Path) -> Sequence:
    call = module.__call__ if callable(module) else None
    functions = getattr(call, "concrete_functions", [])
    if functions:
        return functions
    signatures = ", ".join(sorted(getattr(module, "signatures", {}))) or "none"
    raise EncoderError(
        "An encoder must be a reusable SavedModel: one that can be called, as "
        f"`module(inputs, training=…)`. The one in {path} has signatures only "
        f"({signatures}), which cannot be trained. Export it again with a `__call__`, "
        "or use a module with the same weights from tlkit's catalog."
    )


def _by_training(functions: Sequence) -> dict[bool, Any]:
    """The function for each value of `training`, of the most general input shape."""
    found: dict[bool | None, Any] = {}
    for function in sorted(functions, key=_unknown_sizes):
        args, kwargs = function.structured_input_signature
        flags = [a for a in [*args[1:], kwargs.get("training")] if isinstance(a, bool)]
        found[flags[0] if flags else None] = function
    inference = found.get(False, found.get(None, found.get(True)))
    return {False: inference, True: found.get(True, inference)}


def _unknown_sizes(function) -> tuple[bool, int]:
    """Dicts and tensors before lists, and more unknown dimensions later."""
    first = _first_argument(function)
    specs = tf.nest.flatten(first)
    unknown = sum(
        spec.shape.rank is None or list(spec.shape).count(None)
        for spec in specs
        if isinstance(spec, tf.TensorSpec)
    )
    return not isinstance(first, (list, tuple)), unknown


def _first_argument(function):
    args, kwargs = function.structured_input_signature
    if args:
        return args[0]
    return next(iter(kwargs.values()), None)


def _variables(module, functions) -> tuple[tf.Variable, ...]:
    """The module's list first, then what only its functions know.

    A `tf.Module` written by hand may list no variables at all.
    """
    captured = [v for function in functions for v in function.graph.variables]
    used = {id(v) for v in captured}
    listed = [v for v in getattr(module, "variables", ()) if id(v) in used]
    unique = {id(v): v for v in [*listed, *captured]}
    return tuple(unique.values())
