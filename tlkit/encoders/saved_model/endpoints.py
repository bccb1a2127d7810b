"""Finds the functions that run a SavedModel, and the values of their arguments.

TF Hub's reusable form is one callable object, traced for `training=False` and for
`training=True`. Keras 3 writes no callable: `model.export` writes an endpoint `serve`,
and an `ExportArchive` has endpoints that its author named.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...errors import EncoderError

# Endpoints for inference and for training, in the order of search if the module cannot
# be called itself.
_NAMES = (
    ("call_inference", "call_training"),
    ("inference", "training"),
    ("serve", "serve_training"),
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A restored function with values for all of its arguments except the inputs.

    Args:
        function: The concrete function.
        inputs: Nest of `tf.TensorSpec` of the inputs, which are its first argument.
        arguments: Values of the other positional arguments.
        keywords: Values of the keyword arguments, without the inputs.
        keyword: Name of the argument for the inputs if they must be passed by name,
            otherwise `None`.
    """

    function: Any
    inputs: Any
    arguments: tuple
    keywords: Mapping[str, Any]
    keyword: str | None = None

    def __call__(self, inputs: Any) -> Any:
        """Runs the function on a nest of tensors."""
        if self.keyword is None:
            return self.function(inputs, *self.arguments, **self.keywords)
        return self.function(**{self.keyword: inputs}, **self.keywords)

    @property
    def constants(self) -> list[tf.Tensor]:
        """Returns the tensors among the values, such as a batch norm's momentum."""
        values = tf.nest.flatten((self.arguments, dict(self.keywords)))
        return [value for value in values if isinstance(value, tf.Tensor)]


def find_endpoints(
    module: Any, where: str, names: Sequence[str | None] | None = None
) -> dict[bool, Endpoint]:
    """Finds the endpoints of a SavedModel for inference and for training.

    Args:
        module: The restored SavedModel.
        where: Its origin, for error messages.
        names: Names of the endpoints for inference and for training; the second may be
            `None`. By default, the endpoints are found automatically.

    Returns:
        The endpoint for inference under `False` and the one for training under `True`.
        Both are the same object if the module has only one.

    Raises:
        EncoderError: The module has only signatures, lacks an endpoint, or takes an
            argument without a default.
    """
    if names is None and _traces(_call(module)):
        return _by_training(_call(module), where)
    pairs = _NAMES if names is None else (_checked(module, where, names),)
    for pair in pairs:
        inference, training = (getattr(module, n, None) if n else None for n in pair)
        if _traces(inference):
            endpoints = _by_training(inference, where)
            if _traces(training):
                endpoints[True] = _by_training(training, where)[True]
            return endpoints
    raise EncoderError(_signatures_only(module, where))


def _call(module: Any) -> Any:
    return module.__call__ if callable(module) else None


def _traces(function: Any) -> Sequence:
    return getattr(function, "concrete_functions", ())


def _checked(module: Any, where: str, names: Sequence[str | None]) -> tuple:
    existing = endpoint_names(module)
    for name in names:
        if name is not None and name not in existing:
            raise EncoderError(
                f"There is no endpoint {name!r} in {where}. Its endpoints: "
                f"{', '.join(existing) or 'none'}. Pass two names, as in "
                'endpoints=("call_inference", "call_training"), or None for the second.'
            )
    return tuple(names)


def endpoint_names(module: Any) -> list[str]:
    """Lists the functions that a restored SavedModel has as attributes."""
    names = [name for name in vars(module) if not name.startswith("_")]
    return sorted(name for name in names if _traces(getattr(module, name, None)))


def _signatures_only(module: Any, where: str) -> str:
    signatures = ", ".join(sorted(getattr(module, "signatures", {}))) or "none"
    text = (
        "An encoder must be a reusable SavedModel: one that can be called, as "
        f"`module(inputs, training=…)`. The one in {where} has signatures only "
        f"({signatures}), which cannot be trained. Export it again with a `__call__`, "
        "or use a module with the same weights from tlkit's catalog."
    )
    names = endpoint_names(module)
    if names:
        text += (
            f" It has other endpoints, though: {', '.join(names)}. Name those that run "
            f"it: tlkit.load_encoder(source, endpoints=({names[0]!r}, None))."
        )
    return text


def _by_training(call: Any, where: str) -> dict[bool, Endpoint]:
    """Chooses the most general trace of a function for each value of `training`."""
    traces: dict[bool | None, Any] = {}
    for function in sorted(_traces(call), key=_generality):
        args, kwargs = function.structured_input_signature
        flags = [a for a in [*args[1:], kwargs.get("training")] if isinstance(a, bool)]
        traces[flags[0] if flags else None] = function
    inference = traces.get(False, traces.get(None, traces.get(True)))
    training = traces.get(True, inference)
    endpoint = _endpoint(call, inference, where)
    if training is inference:
        return {False: endpoint, True: endpoint}
    return {False: endpoint, True: _endpoint(call, training, where)}


def _generality(function: Any) -> tuple[bool, int]:
    """Returns a sort key that is higher for a trace that accepts more inputs.

    A trace of a tensor or a dict ranks above one of a list; among these, the one with
    more unknown dimensions ranks higher.
    """
    first, _ = _first_argument(function)
    unknown = sum(
        spec.shape.rank is None or list(spec.shape).count(None)
        for spec in tf.nest.flatten(first)
        if isinstance(spec, tf.TensorSpec)
    )
    return not isinstance(first, (list, tuple)), unknown


def _first_argument(function: Any) -> tuple[Any, str | None]:
    """Returns the specs of the inputs, and their name if they are passed by keyword."""
    args, kwargs = function.structured_input_signature
    if args:
        return args[0], None
    return next(((spec, name) for name, spec in kwargs.items()), (None, None))


def _endpoint(call: Any, function: Any, where: str) -> Endpoint:
    args, kwargs = function.structured_input_signature
    first, keyword = _first_argument(function)
    names = list(call.function_type.parameters) if call.function_type else []
    # Private: the published defaults of a restored function have no public name.
    # tests/encoders/saved_model/test_endpoints.py notices when it changes.
    defaults = getattr(call, "_default_values", None) or {}

    def value(name: str, argument: Any) -> Any:
        if not isinstance(argument, tf.TensorSpec):
            return argument
        if name not in defaults:
            raise EncoderError(
                f"The module in {where} takes {name!r} ({argument.dtype.name}) beside "
                "its inputs and has no default for it. Wrap it in a tf.Module whose "
                "`__call__(inputs, training=False)` passes a value, and save that."
            )
        return tf.constant(defaults[name], argument.dtype)

    others = zip(names[1:], args[1:], strict=False)
    return Endpoint(
        function=function,
        inputs=first,
        arguments=tuple(value(name, argument) for name, argument in others),
        keywords={k: value(k, v) for k, v in kwargs.items() if k != keyword},
        keyword=keyword,
    )
