"""Opens a restored SavedModel: its functions become a network that can be cut."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from .graph.flat_graph import CannotOpen, FlatGraph
from .graph.flattener import flatten
from .graph.tensor_shapes import untie_shapes
from .graph.upsampling import repeat_pixels
from .network.network import Network
from .network.specs import Variable
from .saved_model.saved_model_reader import Restored


def open_network(restored: Restored) -> tuple[Network, list[Variable]]:
    """Opens a restored SavedModel.

    Args:
        restored: The SavedModel.

    Returns:
        The network, and what each of its variables is.

    Raises:
        CannotOpen: Its graph cannot be opened; the text says why.
    """
    variables = {
        id(variable.handle): (i, tf.TensorSpec(variable.shape, variable.dtype))
        for i, variable in enumerate(restored.variables)
    }
    resources: list[tf.Tensor] = []
    graphs: dict[bool, FlatGraph] = {}
    for training, endpoint in restored.endpoints.items():
        constants = endpoint.constants
        if endpoint.keyword and constants:
            raise CannotOpen("its inputs go by name, with other tensors beside them")
        graph = flatten(endpoint.function, variables, resources, constants)
        wanted = tuple(graph.outputs[i] for i in restored.selected)
        graph = repeat_pixels(dataclasses.replace(graph, outputs=wanted))
        graphs[training] = untie_shapes(graph)
    losses = [flatten(loss, variables, resources) for loss in restored.losses]
    vectors = {i for i, v in enumerate(restored.variables) if v.shape.rank <= 1}
    network = Network(graphs, frozenset(vectors), resources, restored.module, losses)
    return network, [_variable(i, restored) for i in range(len(restored.variables))]


def _variable(position: int, restored: Restored) -> Variable:
    variable = restored.variables[position]
    return Variable(
        name=variable.name.split(":")[0],
        shape=tuple(variable.shape),
        dtype=variable.dtype.name,
        learnable=position in restored.learnable,
    )
