"""Custom gradients of a SavedModel, in a form that can move with its graph.

A function with `tf.custom_gradient` leaves an `IdentityN` node whose attribute names
its gradient. TensorFlow saves the gradient as a function that captures tensors of the
original graph. It cannot capture tensors of a copy of this graph. So the flattener adds
the captured tensors to the inputs of the `IdentityN`. The gradient becomes a pure graph
of upstream gradients and captured values, registered under a hash of its content.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Private: TensorFlow has no public function to look up a registered gradient.
# tests/encoders/graph/test_custom_gradients.py notices when it changes.
from tensorflow.python.framework import ops

from ...errors import EncoderError

# The attribute of a node that names its gradient.
GRADIENT_ATTRIBUTE = "_gradient_op_type"
# The name for gradients that were not saved, and the attribute with the original name.
MISSING_GRADIENT = "TlkitMissingGradient"
ORIGINAL_NAME = "_tlkit_gradient"

_REGISTERED: set[str] = set()


@dataclasses.dataclass(frozen=True)
class GradientGraph:
    """A custom gradient as a pure graph.

    Args:
        definition: The graph, without its placeholders.
        inputs: Names of its placeholders: the upstream gradients, then the captured
            tensors.
        outputs: For each input of the original `IdentityN`, the tensor with its
            gradient, or `None`.
    """

    definition: tf.compat.v1.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """Returns a name with a hash of the content, the same in every process."""
        data = self.definition.SerializeToString(deterministic=True)
        data += repr((self.inputs, self.outputs)).encode()
        return f"TlkitGradient-{hashlib.sha256(data).hexdigest()[:24]}"

    def __call__(self, op: tf.Operation, *upstream: tf.Tensor | None) -> list:
        """Computes the gradients of an op's inputs; TensorFlow calls it.

        The last inputs of the op, an `IdentityN`, are the captured tensors. They have
        no gradient, so their result is `None`.
        """
        count = len(self.outputs)
        gradients = [
            tf.zeros_like(output) if gradient is None else gradient
            for output, gradient in zip(
                op.outputs[:count], upstream[:count], strict=True
            )
        ]
        # If the backward pass is a separate graph, `tf.identity` makes it capture the
        # tensors of the forward pass.
        tensors = [tf.identity(t) for t in (*gradients, *op.inputs[count:])]
        names = [f"{name}:0" for name in self.inputs]
        fed = dict(zip(names, tensors, strict=True))
        computed = [name for name in self.outputs if name and name not in fed]
        used = {name for node in self.definition.node for name in node.input}
        results = tf.graph_util.import_graph_def(
            self.definition,
            {k: v for k, v in fed.items() if k in used or k[:-2] in used},
            computed,
            name="gradient",
        )
        by_name = fed | dict(zip(computed, results, strict=True))
        input_gradients = [by_name[name] if name else None for name in self.outputs]
        return [*input_gradients, *[None] * (len(tensors) - count)]


def register(gradients: dict[str, GradientGraph]) -> None:
    """Registers custom gradients with TensorFlow, each once, by their names."""
    for name, gradient in gradients.items():
        if name not in _REGISTERED:
            tf.RegisterGradient(name)(gradient.__call__)
            _REGISTERED.add(name)


def with_custom_gradient(
    op: tf.Operation,
    build: Callable[..., list[tf.Tensor]],
    inputs: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """Builds a copy of an op so that a gradient tape uses the op's custom gradient.

    A tape ignores the attribute of a node that names its gradient.

    Args:
        op: The op, whose attribute names its gradient.
        build: Builds the copy from its inputs and returns its outputs.
        inputs: The inputs of the copy.

    Returns:
        The outputs of the copy.
    """
    name = op.get_attr(GRADIENT_ATTRIBUTE).decode()

    @tf.custom_gradient
    def run(*tensors):
        outputs = build(*tensors)

        def gradient(*upstream):
            # Only the original op has the attributes that the error needs.
            source = op if name == MISSING_GRADIENT else outputs[0].op
            return ops.gradient_registry.lookup(name)(source, *upstream)

        return outputs, gradient

    return run(*inputs)


@tf.RegisterGradient(MISSING_GRADIENT)
def _raise_missing(op: tf.Operation, *_):
    original = op.get_attr(ORIGINAL_NAME).decode()
    raise EncoderError(
        f"The SavedModel has a custom gradient at the op {op.name!r} that was not "
        f"saved with it (there it is called {original!r}), so the layers before it "
        "cannot be trained. Freeze them: tlkit.freeze(model, train=…) with the blocks "
        'behind it, or train="head". Or export the module again with '
        "tf.saved_model.SaveOptions(experimental_custom_gradients=True)."
    )


def find_function(name: str) -> Any | None:
    """Looks up the restored function of a custom gradient.

    Args:
        name: The gradient's name, from a node's attribute.

    Returns:
        A concrete function of the upstream gradients; `None` if the gradient belongs
        to a library such as TensorFlow.

    Raises:
        LookupError: Nothing is registered under that name.
    """
    gradient: Callable = ops.gradient_registry.lookup(name)
    # TensorFlow's loader wraps the function in a closure and stores it nowhere else.
    return inspect.getclosurevars(gradient).nonlocals.get("func")
