"""The way back: an encoder becomes a module in TF Hub's reusable form.

https://www.tensorflow.org/hub/reusable_saved_models

The graphs of an opened encoder go into functions as they are, around variables that
have the names which they had when they were published. So whoever loads the result
finds ordinary ops, and `tlkit` finds the blocks again. What is frozen at the moment
does not matter: the training graph is that of the whole network.
"""

from __future__ import annotations

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
    """A tf.Module whose lists are plain attributes, which a SavedModel keeps.

    `variables` and `trainable_variables` of a tf.Module are properties, and are lost.
    """

    variables = trainable_variables = ()


@dataclasses.dataclass(frozen=True)
class Reusable:
    """An encoder in TF Hub's reusable form, not yet written.

    Args:
        module: It has `__call__(inputs, training=False)`, traced for both values,
            `variables`, `trainable_variables` and `regularization_losses`.
        names: The name that each of the encoder's Keras variables has in it, by the
            `id` of the Keras variable.
        owner: What has to live until the module is written.
    """

    module: tf.Module
    names: Mapping[int, str]
    owner: Any = None


def make_reusable(encoder: Encoder) -> Reusable:
    """Makes a module in TF Hub's reusable form, and leaves the encoder as it is.

    Args:
        encoder: Any encoder.

    Returns:
        The module. That of an encoder which could not be opened shares its variables,
        any other has copies.

    Raises:
        ExportError: The network leans on something that no SavedModel can hold.
    """
    if isinstance(encoder, OpenedEncoder):
        return _of_opened(encoder)
    if isinstance(encoder, NativeEncoder):
        return _of_native(encoder)
    return _of_restored(encoder)


# === Opened SavedModels ===


def _of_opened(encoder: OpenedEncoder) -> Reusable:
    network, named = encoder.network, encoder.named_variables
    module = _around_graphs(
        encoder,
        network.graphs,
        network.losses,
        [spec for spec, _ in named],
        [variable.numpy() for _, variable in named],
        network.resources,
    )
    module.tables = _tables(network.owner, network.resources)
    return Reusable(module, {id(v): spec.name for spec, v in named})


def _around_graphs(
    encoder: Encoder,
    graphs: Mapping[bool, FlatGraph],
    losses: Sequence[FlatGraph],
    variables: Sequence[VariableSpec],
    values: Sequence[Any],
    resources: Sequence[tf.Tensor],
) -> ReusableModule:
    """A module of its own variables, around flat graphs."""
    graphs = {training: pruned(graph) for training, graph in graphs.items()}
    used = {p for g in (*graphs.values(), *losses) for p in g.variables.values()}
    used |= {p for graph in graphs.values() for p in graph.updates}
    with tf.device("cpu:0"):  # there is room, and a SavedModel keeps no devices
        own = {
            i: tf.Variable(values[i], name=spec.name, trainable=spec.learnable)
            for i, spec in enumerate(variables)
            if i in used
        }
    outputs = encoder.outputs_spec

    def call(inputs: Any, training: bool) -> Any:
        flat = tf.nest.flatten(inputs)
        found, updates = run_graph(graphs[training], flat, own, resources)
        for position, value in updates.items():
            own[position].assign(value)
        return tf.nest.pack_sequence_as(outputs, found)

    return _module(
        encoder,
        call,
        variables=list(own.values()),
        learnable=[own[i] for i in own if variables[i].learnable],
        losses=[_loss_of(graph, own) for graph in losses],
    )


def _loss_of(graph: FlatGraph, own: Mapping[int, tf.Variable]) -> Callable:
    return lambda: run_graph(graph, (), own, ())[0][0]


def _module(
    encoder: Encoder,
    call: Callable[[Any, bool], Any],
    *,
    variables: Sequence[tf.Variable],
    learnable: Sequence[tf.Variable],
    losses: Sequence[Callable],
) -> ReusableModule:
    module = ReusableModule()
    named = _named_output(encoder)

    @tf.function(autograph=False)
    def function(inputs: Any, training: bool = False) -> Any:
        outputs = call(inputs, training)
        return outputs if named is None else {named: outputs}

    for training in (False, True):
        function.get_concrete_function(encoder.inputs_spec, training=training)
    module.__call__ = function
    module.variables = list(variables)
    module.trainable_variables = list(learnable)
    module.regularization_losses = [
        tf.function(loss, input_signature=(), autograph=False) for loss in losses
    ]
    return module


def _named_output(encoder: Encoder) -> str | None:
    """Name of the one output that a text encoder was loaded for.

    TF Hub's text encoders give dicts, in which users look for it.
    """
    return encoder.facts.output if encoder.facts.kind == "text" else None


def _tables(owner: Any, resources: Sequence[tf.Tensor]) -> list[Any]:
    """The tables that captured handles belong to, without the rest of their module."""
    if not resources:
        return []
    everything = tf.train.TrackableView(owner).descendants()
    found = []
    for resource in resources:
        holders = (
            x for x in everything if getattr(x, "resource_handle", None) is resource
        )
        table = next(holders, None)
        if table is None:
            raise ExportError(
                "The encoder's graph uses a resource that is no table of its "
                f"SavedModel ({resource.name}), so it cannot be published. Load it "
                "with tlkit.load_encoder(source, open_graph=False) and publish that."
            )
        found.append(table)
    return found


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
    # Its variables are called "kernel" all of them, which says nothing of blocks; and
    # only when it was written and read are custom gradients where one can get at them.
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
    module = _around_graphs(
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
            f"The Keras model {encoder.model.name!r} does not say what it takes, since "
            "it is no Functional or Sequential one. Publish one with inputs: "
            "keras.Model(inputs, model(inputs))."
        ) from error


@contextlib.contextmanager
def _layers_trainable(model: keras.Model) -> Iterator[None]:
    """A frozen batch norm runs as in inference whatever `training` says; not in here.

    Variables stay as they are.
    """
    # Private: the public setter would write every variable's `trainable` below it.
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
    """A name that TensorFlow takes for a variable."""
    plain = re.sub(r"[^A-Za-z0-9_./-]+", "_", name.split(":")[0])
    return plain if plain[:1].isalnum() else f"v{plain}"


# === What could not be opened ===


def _of_restored(encoder: RestoredEncoder) -> Reusable:
    (block,) = encoder.blocks
    module = _module(
        encoder,
        encoder.run_whole,
        variables=[variable.value for variable in block.variables],
        learnable=[variable.value for variable in block.learnable],
        losses=encoder.regularization,
    )
    module.original = encoder.module  # for its tables and assets
    names = {id(v): v.value.name.split(":")[0] for v in block.variables}
    return Reusable(module, names)
