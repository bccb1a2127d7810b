"""Reads a SavedModel: its functions, variables and regularization losses."""

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
from .op_effects import host_ops
from .trust import check_saved_model_ops


@dataclasses.dataclass(frozen=True)
class Restored:
    """A SavedModel in memory, with the functions that an encoder needs.

    Args:
        module: The object that `tf.saved_model.load` returned.
        endpoints: The function for inference under `False`, the one for training
            under `True`. Both are the same object if the module has only one.
        outputs: Nest of `tf.TensorSpec` of the selected outputs.
        variables: All variables that the functions read or write.
        learnable: Positions in `variables` of those that the module allows training.
        losses: The module's regularization losses: functions without arguments.
        host_ops: Types of the functions' ops that no TPU runs.
        file_ops: Types of ops anywhere in the SavedModel that use files, connect to
            other machines or run Python.
        selected: Positions of the selected outputs among all outputs, flattened.
        output: Name of the selected output, or names; `None` for all outputs.
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
        """Returns the nest of `tf.TensorSpec` of the first argument."""
        return self.endpoints[False].inputs

    @property
    def takes_training(self) -> bool:
        """Returns whether training and inference run different functions."""
        return self.endpoints[False] is not self.endpoints[True]


def read_saved_model(
    path: pathlib.Path,
    *,
    endpoints: Sequence[str | None] | None = None,
    trust: bool = False,
) -> Restored:
    """Loads a reusable SavedModel.

    Its ops are checked first, since some would run as soon as it is loaded.

    Args:
        path: Folder with a `saved_model.pb`.
        endpoints: Names of the functions for inference and for training; found
            automatically if `None`.
        trust: Whether it may use files, connect to other machines or run Python.

    Returns:
        The module and its functions.

    Raises:
        SourceError: TensorFlow cannot load the folder, or the SavedModel contains ops
            that need `trust=True`.
        EncoderError: The module is not in the reusable form: it has only signatures.
        ExtraError: It holds ops of TF Text and TF Text is not installed.
    """
    file_ops = check_saved_model_ops(pathlib.Path(path), trust=trust)
    module = _load(path)
    by_training = find_endpoints(module, str(path), endpoints)
    outputs = by_training[False].function.structured_outputs
    losses = tuple(_losses(module))
    functions = [*(e.function for e in by_training.values()), *losses]
    variables = _variables(module, functions)
    trainable = getattr(module, "trainable_variables", None)
    if trainable is None or not len(trainable):
        trainable = [v for v in variables if v.trainable]
    allowed = {id(v) for v in trainable}
    return Restored(
        module=module,
        endpoints=by_training,
        outputs=outputs,
        variables=variables,
        learnable=frozenset(i for i, v in enumerate(variables) if id(v) in allowed),
        losses=losses,
        host_ops=host_ops(endpoint.function for endpoint in by_training.values()),
        file_ops=file_ops,
        selected=tuple(range(len(tf.nest.flatten(outputs)))),
    )


def read_module(
    module: tf.Module, *, endpoints: Sequence[str | None] | None = None
) -> Restored:
    """Reads a module in memory: saves it to a temporary folder and loads it.

    The variables are copies, so training the encoder does not change the module.

    Args:
        module: A `tf.Module` whose `__call__` is a `tf.function` that was traced.
        endpoints: As in `read_saved_model`.

    Returns:
        The copy of the module, and its functions.

    Raises:
        EncoderError: The module cannot be saved, or its `__call__` was never traced.
    """
    folder = tempfile.mkdtemp(prefix="tlkit-module-")
    try:
        tf.saved_model.save(module, folder)
        # Trusted, since the module is already in memory.
        restored = read_saved_model(
            pathlib.Path(folder), endpoints=endpoints, trust=True
        )
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise EncoderError(
            f"The module {type(module).__name__} in memory cannot be read: "
            f"{_first_line(error)} Its `__call__(inputs, training=False)` must be a "
            "tf.function that was traced for both values of training: "
            "module.__call__.get_concrete_function(tf.TensorSpec(…), training=True), "
            "and the same with False."
        ) from error
    # Delete the folder when the module is deleted, not now: an export of the encoder
    # copies the files of its lookup tables.
    weakref.finalize(restored.module, shutil.rmtree, folder, ignore_errors=True)
    return restored


def outside_strategy(function: Callable[[], Restored]) -> Restored:
    """Calls a function outside the scope of the current strategy, if there is one."""
    if not tf.distribute.has_strategy():
        return function()
    # A scope applies to its own thread only, and there is no other way to leave it.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _load(path: pathlib.Path):
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        if "Op type not registered" not in str(error):
            raise SourceError(
                f"TensorFlow cannot load the SavedModel in {path}: "
                f"{_first_line(error)} Fetch it again, or pass another source."
            ) from error
    # Importing TF Text registers the ops of tokenizers.
    import_extra("tensorflow_text", "text", f"the SavedModel in {path}")
    try:
        return tf.saved_model.load(str(path))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
        raise SourceError(
            f"The SavedModel in {path} holds an op that neither TensorFlow nor TF Text "
            f"knows: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] + "." if lines else type(error).__name__ + "."


def _losses(module: Any) -> Iterable[Any]:
    """Yields one concrete function of each regularization loss of a module."""
    for loss in getattr(module, "regularization_losses", None) or ():
        yield from getattr(loss, "concrete_functions", [])[:1]


def _variables(module: Any, functions: Iterable[Any]) -> tuple[tf.Variable, ...]:
    """Returns the variables that functions use, in the order of the module's list.

    Variables that are missing in this list come last; the list of a `tf.Module` that
    was written by hand may be empty.
    """
    captured = [v for function in functions for v in function.graph.variables]
    captured_ids = {id(v) for v in captured}
    listed = [v for v in getattr(module, "variables", ()) if id(v) in captured_ids]
    unique = {id(v): v for v in [*listed, *captured]}
    return tuple(unique.values())
