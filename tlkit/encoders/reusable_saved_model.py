"""Turns an encoder back into a module in TF Hub's reusable form.

https://www.tensorflow.org/hub/reusable_saved_models

The functions of the module contain the graphs of an opened encoder unchanged. Its
variables have the published names, so `tlkit` finds the same blocks when it loads the
module. With `training=True` the whole network runs in training mode, even if some
blocks are frozen when the module is built.

Tested in tests/serving/test_publishing.py.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import ExportError
from .encoder import Encoder
from .graph.flat_graph import CannotOpen, FlatGraph
from .graph.graph_runner import pruned, run_graph
from .loading import open_network
from .native_encoder import NativeEncoder
from .network.network_files import VariableSpec
from .opened_encoder import OpenedEncoder
from .restored_encoder import RestoredEncoder
from .saved_model.saved_model_reader import read_module


class ReusableModule(tf.Module):
    """A `tf.Module` that stores its lists of variables in a SavedModel.

    In `tf.Module` the lists are properties, which a SavedModel does not store.
    """

    variables = trainable_variables = ()


@dataclasses.dataclass(frozen=True)
class Reusable:
    """An encoder in TF Hub's reusable form, not yet written.

    Args:
        module: The module with `__call__(inputs, training=False)`, traced for `False`
            and `True`, `variables`, `trainable_variables`, `regularization_losses`.
        names: The name that each variable of the encoder has in the module, by the `id`
            of the Keras variable.
        owner: Owner of the module's lookup tables, which are lost if it is deleted
            before the module is written.
    """

    module: tf.Module
    names: Mapping[int, str]
    owner: Any = None


def make_reusable(encoder: Encoder) -> Reusable:
    """Builds a module in TF Hub's reusable form from an encoder.

    Returns:
        The module, with copies of the encoder's variables. If the encoder's graph
        cannot be opened, the module shares the variables with the encoder.

    Raises:
        ExportError: The encoder's graph uses a resource that is not a table of its
            SavedModel, or the encoder is a Keras model without known inputs.
    """
    if isinstance(encoder, OpenedEncoder):
        return _of_opened(encoder)
    if isinstance(encoder, NativeEncoder):
        return _of_native(encoder)
    return _of_restored(encoder)


# === Opened SavedModels ===


def _of_opened(encoder: OpenedEncoder) -> Reusable:
    network, named = encoder.network, encoder.named_variables
    module = _module_of_graphs(
        encoder,
        network.graphs,
        network.losses,
        [spec for spec, _ in named],
        [variable.numpy() for _, variable in named],
        network.resources,
    )
    module.tables = _tables(network.owner, network.resources)
    return Reusable(module, {id(v): spec.name for spec, v in named})


def _module_of_graphs(
    encoder: Encoder,
    graphs: Mapping[bool, FlatGraph],
    losses: Sequence[FlatGraph],
    variables: Sequence[VariableSpec],
    values: Sequence[Any],
    resources: Sequence[tf.Tensor],
) -> ReusableModule:
    """Builds a module whose functions run flat graphs on new variables."""
    graphs = {training: pruned(graph) for training, graph in graphs.items()}
    used = {p for g in (*graphs.values(), *losses) for p in g.variables.values()}
    used |= {p for graph in graphs.values() for p in graph.updates}
    # The CPU has memory for a copy of the weights, and a SavedModel stores no devices.
    with tf.device("cpu:0"):
        new = {
            i: tf.Variable(values[i], name=spec.name, trainable=spec.learnable)
            for i, spec in enumerate(variables)
            if i in used
        }
    outputs = encoder.outputs_spec

    def call(inputs: Any, training: bool) -> Any:
        flat = tf.nest.flatten(inputs)
        results, updates = run_graph(graphs[training], flat, new, resources)
        for position, value in updates.items():
            new[position].assign(value)
        return tf.nest.pack_sequence_as(outputs, results)

    return _module(
        encoder,
        call,
        variables=list(new.values()),
        learnable=[new[i] for i in new if variables[i].learnable],
        losses=[_loss_of(graph, new) for graph in losses],
    )


def _loss_of(graph: FlatGraph, variables: Mapping[int, tf.Variable]) -> Callable:
    return lambda: run_graph(graph, (), variables, ())[0][0]


def _module(
    encoder: Encoder,
    call: Callable[[Any, bool], Any],
    *,
    variables: Sequence[tf.Variable],
    learnable: Sequence[tf.Variable],
    losses: Sequence[Callable],
) -> ReusableModule:
    module = ReusableModule()
    # TF Hub's text encoders return a dict, and users look up the output by its name.
    name = encoder.facts.output if encoder.facts.kind == "text" else None

    @tf.function(autograph=False)
    def function(inputs: Any, training: bool = False) -> Any:
        outputs = call(inputs, training)
        return outputs if name is None else {name: outputs}

    for training in (False, True):
        function.get_concrete_function(encoder.inputs_spec, training=training)
    module.__call__ = function
    module.variables = list(variables)
    module.trainable_variables = list(learnable)
    module.regularization_losses = [
        tf.function(loss, input_signature=(), autograph=False) for loss in losses
    ]
    return module


def _tables(owner: Any, resources: Sequence[tf.Tensor]) -> list[Any]:
    """Returns the lookup tables to which captured resource handles belong."""
    if not resources:
        return []
    everything = tf.train.TrackableView(owner).descendants()
    tables = []
    for resource in resources:
        holders = (
            x for x in everything if getattr(x, "resource_handle", None) is resource
        )
        table = next(holders, None)
        if table is None:
            raise ExportError(
                "The encoder's graph uses a resource that is not a table of its "
                f"SavedModel ({resource.name}), so it cannot be published. Load it "
                "with tlkit.load_encoder(source, open_graph=False) and publish that."
            )
        tables.append(table)
    return tables


# === Keras models ===


def _of_native(encoder: NativeEncoder) -> Reusable:
    model = encoder.model
    _check_inputs_are_known(encoder)
    learnable = [v.value for block in encoder.blocks for v in block.learnable]
    regularized = [v for v in model.weights if getattr(v, "regularizer", None)]
    with _layers_trainable(model):
        module = _module(
            encoder,
            lambda inputs, training: _call(model, inputs, training),
            variables=[v.value for v in model.variables],
            learnable=learnable,
            losses=[_regularization_of(v) for v in regularized],
        )
    names = {id(v): _plain(v.path) for v in model.variables}
    # Read the module back as flat graphs and name each variable by its Keras path: a
    # name such as "kernel" does not show the block. Flat graphs also contain the custom
    # gradients, which the traced functions give no access to.
    restored = read_module(module)
    try:
        network, variables = open_network(restored)
    except CannotOpen:
        return Reusable(module, names)
    pairs = zip(restored.module.variables, model.variables, strict=True)
    path_of = {id(ours): names[id(theirs)] for ours, theirs in pairs}
    variables = [
        dataclasses.replace(spec, name=path_of[id(variable)])
        for spec, variable in zip(variables, restored.variables, strict=True)
    ]
    module = _module_of_graphs(
        encoder,
        network.graphs,
        network.losses,
        variables,
        [v.numpy() for v in restored.variables],
        network.resources,
    )
    module.tables = _tables(network.owner, network.resources)
    return Reusable(module, names, network.owner)


def _check_inputs_are_known(encoder: NativeEncoder) -> None:
    try:
        tf.nest.flatten((encoder.inputs_spec, encoder.outputs_spec))
    except (AttributeError, ValueError) as error:
        raise ExportError(
            f"The Keras model {encoder.model.name!r} has no known inputs, since it is "
            "not a Functional or Sequential one. Publish a model with inputs: "
            "keras.Model(inputs, model(inputs))."
        ) from error


@contextlib.contextmanager
def _layers_trainable(model: keras.Model) -> Iterator[None]:
    """Marks a model's layers, but not their variables, as trainable in a `with` block.

    Keras would trace a frozen batch norm in inference mode even with `training=True`.
    """
    # Private: the public setter would also change `trainable` of every variable.
    # tests/serving/test_publishing.py notices when it changes.
    before = [(layer, layer.trainable) for layer in model._flatten_layers()]
    try:
        for layer, _ in before:
            layer._trainable = True
        yield
    finally:
        for layer, trainable in before:
            layer._trainable = trainable


def _call(model: keras.Model, inputs: Any, training: bool) -> Any:
    outputs = model(inputs, training=training)
    flat = tf.nest.flatten(outputs)
    return flat[0] if len(flat) == 1 else outputs


def _regularization_of(variable: keras.Variable) -> Callable:
    return lambda: variable.regularizer(variable)


def _plain(name: str) -> str:
    """Returns a valid TensorFlow name for a variable."""
    plain = re.sub(r"[^A-Za-z0-9_./-]+", "_", name.split(":")[0])
    return plain if plain[:1].isalnum() else f"v{plain}"


# === Encoders that could not be opened ===


def _of_restored(encoder: RestoredEncoder) -> Reusable:
    (block,) = encoder.blocks
    module = _module(
        encoder,
        encoder.run_whole,
        variables=[variable.value for variable in block.variables],
        learnable=[variable.value for variable in block.learnable],
        losses=encoder.regularization,
    )
    module.original = encoder.module  # its tables and assets must be saved too
    names = {id(v): v.value.name.split(":")[0] for v in block.variables}
    return Reusable(module, names)
