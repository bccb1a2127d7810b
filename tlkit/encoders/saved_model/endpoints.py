"""Which functions of a SavedModel run it, and how they are called.

TF Hub's reusable form is one callable object, traced for `training=False` and for
`training=True`. Keras 3 writes no callable: `model.export` gives an endpoint `serve`,
and an `ExportArchive` those that its author named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ...errors import EncoderError

# For inference and for training, in the order tried where there is no `__call__`.
ENDPOINTS = (
    ("call_inference", "call_training"),
    ("inference", "training"),
    ("serve", "serve_training"),
)


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A restored function, and what stands in its arguments behind the first.

    Args:
        function: The concrete function.
        inputs: Nest of `tf.TensorSpec` of its first argument.
        arguments: The other positional arguments.
        keywords: The keyword arguments; where there are no positional ones, the first
            is among them, under `keyword`.
        keyword: Name of the first argument, if it goes by name.
    """

    function: Any
    inputs: Any
    arguments: tuple
    keywords: Mapping[str, Any]
    keyword: str | None = None

    def __call__(self, inputs: Any) -> Any:
        if self.keyword is None:
            return self.function(inputs, *self.arguments, **self.keywords)
        return self.function(**{self.keyword: inputs}, **self.keywords)

    @property
    def constants(self) -> list[tf.Tensor]:
        """Tensors that follow the inputs, such as a batch norm's momentum."""
        rest = tf.nest.flatten((self.arguments, dict(self.keywords)))
        return [value for value in rest if isinstance(value, tf.Tensor)]


def find_endpoints(
    module: Any, where: str, names: Sequence[str | None] | None = None
) -> dict[bool, Endpoint]:
    """The endpoint for inference under `False`, the one for training under `True`.

    Args:
        module: A restored SavedModel.
        where: Where it came from, for messages.
        names: Names of the endpoints for inference and for training (`None` if there
            is none), instead of looking for them.

    Returns:
        The two endpoints; the same one twice where training is not told apart.

    Raises:
        EncoderError: The module has signatures only, or no endpoint of that name, or
            an argument that nobody knows a value for.
    """
    if names is None and _traces(_call(module)):
        return _by_training(_call(module), where)
    pairs = ENDPOINTS if names is None else (_checked(module, where, names),)
    for pair in pairs:
        found = [getattr(module, name, None) if name else None for name in pair]
        if _traces(found[0]):
            both = _by_training(found[0], where)
            if _traces(found[1]):
                return both | {True: _by_training(found[1], where)[True]}
            return both
    raise EncoderError(_signatures_only(module, where))


def _call(module: Any) -> Any:
    return module.__call__ if callable(module) else None


def _traces(function: Any) -> Sequence:
    return getattr(function, "concrete_functions", ())


def _checked(module: Any, where: str, names: Sequence[str | None]):
    there = endpoint_names(module)
    for name in names:
        if name is not None and name not in there:
            raise EncoderError(
                f"There is no endpoint {name!r} in {where}. Its endpoints: "
                f"{', '.join(there) or 'none'}. Give two of them, as in "
                'endpoints=("call_inference", "call_training"), or None for the second.'
            )
    return tuple(names)


def endpoint_names(module: Any) -> list[str]:
    """Names of the functions that a restored SavedModel has as attributes."""
    names = [name for name in vars(module) if not name.startswith("_")]
    return sorted(name for name in names if _traces(getattr(module, name, None)))


def _signatures_only(module: Any, where: str) -> str:
    there = ", ".join(sorted(getattr(module, "signatures", {}))) or "none"
    text = (
        "An encoder must be a reusable SavedModel: one that can be called, as "
        f"`module(inputs, training=…)`. The one in {where} has signatures only "
        f"({there}), which cannot be trained. Export it again with a `__call__`, or "
        "use a module with the same weights from tlkit's catalog."
    )
    names = endpoint_names(module)
    if names:
        text += (
            f" It has other endpoints, though: {', '.join(names)}. Say which run it: "
            f"tlkit.load_encoder(source, endpoints=({names[0]!r}, None))."
        )
    return text


def _by_training(call: Any, where: str) -> dict[bool, Endpoint]:
    """The trace for each value of `training`, of the most general input shape."""
    found: dict[bool | None, Any] = {}
    for function in sorted(_traces(call), key=_generality):
        args, kwargs = function.structured_input_signature
        flags = [a for a in [*args[1:], kwargs.get("training")] if isinstance(a, bool)]
        found[flags[0] if flags else None] = function
    inference = found.get(False, found.get(None, found.get(True)))
    training = found.get(True, inference)
    endpoint = _endpoint(call, inference, where)
    if training is inference:
        return {False: endpoint, True: endpoint}
    return {False: endpoint, True: _endpoint(call, training, where)}


def _generality(function: Any) -> tuple[bool, int]:
    """Dicts and tensors after lists, and more unknown dimensions later."""
    first, _ = _first_argument(function)
    unknown = sum(
        spec.shape.rank is None or list(spec.shape).count(None)
        for spec in tf.nest.flatten(first)
        if isinstance(spec, tf.TensorSpec)
    )
    return not isinstance(first, (list, tuple)), unknown


def _first_argument(function: Any) -> tuple[Any, str | None]:
    """The spec of the inputs, and the name that they go by if they have to."""
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
                "`__call__(inputs, training=False)` gives a value, and save that."
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
