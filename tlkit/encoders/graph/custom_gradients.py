"""Custom gradients of a SavedModel, in a form that goes where its graph goes.

A function with `tf.custom_gradient` leaves an `IdentityN` behind that names its
gradient. TensorFlow saves the gradient as a function that captures tensors out of the
graph that it belongs to; in a copy of that graph those are out of reach. So here the
captured tensors become further inputs of the `IdentityN`, and the gradient a pure
graph of upstream gradients and captured values, registered under a name that says
what is in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Private: a gradient can be registered in public, but not looked up.
# tests/encoders/graph/test_custom_gradients.py notices when it changes.
from tensorflow.python.framework import ops

from ...errors import EncoderError

NAMED = "_gradient_op_type"
MISSING = "TlkitMissingGradient"
_REGISTERED: set[str] = set()


@dataclasses.dataclass(frozen=True)
class GradientGraph:
    """A custom gradient as a pure graph.

    Args:
        definition: The graph.
        inputs: Names of its placeholders: the upstream gradients, then the captured
            tensors.
        outputs: For each tensor of the forward `IdentityN`, the tensor with its
            gradient, or `None`.
    """

    definition: tf.compat.v1.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """A name that says what is in it, the same in every process."""
        data = self.definition.SerializeToString(deterministic=True)
        data += repr((self.inputs, self.outputs)).encode()
        return f"TlkitGradient-{hashlib.sha256(data).hexdigest()[:24]}"

    def __call__(self, op: tf.Operation, *upstream: tf.Tensor | None):
        """The gradients of the inputs of `op`, as TensorFlow's registry wants them."""
        count = len(self.outputs)
        given = [
            tf.zeros_like(output) if gradient is None else gradient
            for output, gradient in zip(
                op.outputs[:count], upstream[:count], strict=True
            )
        ]
        # Identity, so that a backward graph of its own captures what lies forward.
        tensors = [tf.identity(t) for t in (*given, *op.inputs[count:])]
        bound = {
            f"{k}:0": tensor for k, tensor in zip(self.inputs, tensors, strict=True)
        }
        made = [name for name in self.outputs if name and name not in bound]
        used = {name for node in self.definition.node for name in node.input}
        results = tf.graph_util.import_graph_def(
            self.definition,
            {k: v for k, v in bound.items() if k in used or k[:-2] in used},
            made,
            name="gradient",
        )
        found = bound | dict(zip(made, results, strict=True))
        gradients = [found[name] if name else None for name in self.outputs]
        return [*gradients, *[None] * (len(tensors) - count)]


def register(gradients: dict[str, GradientGraph]) -> None:
    """Makes TensorFlow know custom gradients by their names."""
    for name, gradient in gradients.items():
        if name not in _REGISTERED:
            tf.RegisterGradient(name)(gradient.__call__)
            _REGISTERED.add(name)


def with_named_gradient(
    like: tf.Operation,
    make: Callable[..., list[tf.Tensor]],
    inputs: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """Makes an op once more, with its custom gradient, for a gradient tape too.

    A tape takes no notice of the gradient that a node names.

    Args:
        like: The op, which names a gradient.
        make: Makes such an op of inputs, and gives what comes out.
        inputs: The inputs.

    Returns:
        What comes out.
    """
    name = like.get_attr(NAMED).decode()

    @tf.custom_gradient
    def run(*tensors):
        outputs = make(*tensors)

        def gradient(*upstream):
            # What is said of a missing one is known of the first op only.
            op = like if name == MISSING else outputs[0].op
            return ops.gradient_registry.lookup(name)(op, *upstream)

        return outputs, gradient

    return run(*inputs)


@tf.RegisterGradient(MISSING)
def _missing(op: tf.Operation, *_):
    original = op.get_attr("_tlkit_gradient").decode()
    raise EncoderError(
        f"The SavedModel has a custom gradient at the op {op.name!r} that was not "
        f"saved with it (it is called {original!r} there), so what lies before it "
        "cannot be trained. Freeze that: tlkit.freeze(model, train=…) with the blocks "
        'behind it, or train="head". Or export the module again with '
        "tf.saved_model.SaveOptions(experimental_custom_gradients=True)."
    )


def find_function(name: str) -> Any | None:
    """The restored function of a custom gradient; `None` if it is a library's own.

    Args:
        name: What a node names as its gradient.

    Returns:
        A concrete function of the upstream gradients.

    Raises:
        LookupError: Nothing is registered under that name.
    """
    gradient: Callable = ops.gradient_registry.lookup(name)
    # TensorFlow's loader wraps the function in a closure and keeps it nowhere else.
    return inspect.getclosurevars(gradient).nonlocals.get("func")
