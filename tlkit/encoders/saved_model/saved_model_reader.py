"""Reads a SavedModel from a folder: its functions, variables and losses."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from ...errors import EncoderError, SourceError, import_extra
from .endpoints import Endpoint, find_endpoints
from .outside_ops import host_ops
from .trust import check_saved_model_ops


@dataclasses.dataclass(frozen=True)
class Restored:
    """A SavedModel in memory, with the functions that an encoder needs.

    Args:
        module: What `tf.saved_model.load` gave.
        endpoints: The function for inference under `False`, the one for training
            under `True`; the same one where the module does not tell them apart.
        outputs: Nest of `tf.TensorSpec` of what the functions return.
        variables: All variables that the functions read or write.
        learnable: Positions in `variables` of those that the module says may be
            trained.
        losses: Functions without arguments: the module's regularization losses.
        host_ops: Ops of the functions that no TPU runs.
        file_ops: Ops anywhere in the file that touch files, the network or Python.
        selected: Positions of the wanted outputs among the flattened ones.
        output: Name of the output that is wanted, or names; all of them if `None`.
    """

    module: Any
    endpoints: dict[bool, Endpoint]
    outputs: Any
    variables: tuple[tf.Variable, ...]
    learnable: frozenset[int]
    losses: tuple[Any, ...]
    host_ops: tuple[str, ...]
    file_ops: tuple[str, ...]
    selected: tuple[int, ...]
    output: str | Sequence[str] | None = None

    @property
    def inputs(self) -> Any:
        """Nest of `tf.TensorSpec` of the first argument."""
        return self.endpoints[False].inputs

    @property
    def takes_training(self) -> bool:
        """Whether the module tells training from inference."""
        return self.endpoints[False] is not self.endpoints[True]


def read_saved_model(
    path: pathlib.Path,
    *,
    endpoints: Sequence[str | None] | None = None,
    trust: bool = False,
) -> Restored:
    """Loads a reusable SavedModel.

    Its ops are looked through before: some would run as soon as it is loaded.

    Args:
        path: Folder with a `saved_model.pb`.
        endpoints: Names of the functions for inference and for training; looked for
            if `None`.
        trust: Whether it may read, write, connect or run Python.

    Returns:
        The module and its functions.

    Raises:
        SourceError: TensorFlow cannot load the folder, or it does more than compute
            and is not trusted.
        EncoderError: The module is not in the reusable form: it has signatures only.
        ExtraError: It holds ops of TF Text and TF Text is not installed.
    """
    touched = check_saved_model_ops(pathlib.Path(path), trust=trust)
    module = _load(path)
    found = find_endpoints(module, str(path), endpoints)
    outputs = found[False].function.structured_outputs
    losses = tuple(_losses(module))
    functions = [*(e.function for e in found.values()), *losses]
    variables = _variables(module, functions)
    listed = getattr(module, "trainable_variables", None)
    allowed = {id(v) for v in variables if v.trainable}
    if listed is not None and len(listed):
        allowed = {id(v) for v in listed}
    return Restored(
        module=module,
        endpoints=found,
        outputs=outputs,
        variables=variables,
        learnable=frozenset(i for i, v in enumerate(variables) if id(v) in allowed),
        losses=losses,
        host_ops=host_ops(endpoint.function for endpoint in found.values()),
        file_ops=touched,
        selected=tuple(range(len(tf.nest.flatten(outputs)))),
    )


def read_module(
    module: tf.Module, *, endpoints: Sequence[str | None] | None = None
) -> Restored:
    """Reads a module in memory by way of a SavedModel in a temporary folder.

    The variables are copies: training the encoder leaves the module as it is.

    Args:
        module: A `tf.Module` whose `__call__` is a `tf.function` that was traced.
        endpoints: As in `read_saved_model`.

    Returns:
        The module as it was read back, and its functions.

    Raises:
        EncoderError: The module cannot be saved, or its `__call__` was never traced.
    """
    folder = tempfile.mkdtemp(prefix="tlkit-module-")
    try:
        tf.saved_model.save(module, folder)
        # Its user wrote it, or has loaded it before.
        restored = read_saved_model(
            pathlib.Path(folder), endpoints=endpoints, trust=True
        )
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EncoderError(
            f"The module {type(module).__name__} in memory cannot be read: "
            f"{_first(error)} Its `__call__(inputs, training=False)` must be a "
            "tf.function that was traced for both values of training: "
            "module.__call__.get_concrete_function(tf.TensorSpec(…), training=True), "
            "and the same with False."
        ) from error
    # A table's file is in there, and is wanted again when the encoder is exported.
    weakref.finalize(restored.module, shutil.rmtree, folder, ignore_errors=True)
    return restored


def outside_strategy(function: Callable[[], Restored]) -> Restored:
    """Calls a function outside the strategy whose scope this is, if it is one."""
    if not tf.distribute.has_strategy():
        return function()
    # A scope belongs to its thread, and has no other way out.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


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


def _losses(module: Any) -> Iterable[Any]:
    """The traces of the module's regularization losses."""
    for loss in getattr(module, "regularization_losses", None) or ():
        yield from getattr(loss, "concrete_functions", [])[:1]


def _variables(module: Any, functions: Iterable[Any]) -> tuple[tf.Variable, ...]:
    """The module's list first, then what only its functions know.

    A `tf.Module` written by hand may list no variables at all.
    """
    captured = [v for function in functions for v in function.graph.variables]
    used = {id(v) for v in captured}
    listed = [v for v in getattr(module, "variables", ()) if id(v) in used]
    unique = {id(v): v for v in [*listed, *captured]}
    return tuple(unique.values())
