"""Loads an encoder from a source: a folder, a name, an address, a model or a module.

Tested in tests/encoders/test_forms.py.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError, import_extra
from ..sources import Card, resolve
from .block_map import names_by_map, read_block_map
from .encoder import Encoder
from .encoder_facts import EncoderFacts
from .graph.flat_graph import CannotOpen, FlatGraph
from .graph.flattener import flatten
from .graph.tensor_shapes import untie_shapes
from .graph.upsampling import repeat_pixels
from .native_encoder import NativeEncoder
from .network.network import Network
from .network.network_files import VariableSpec, specs_to_json
from .opened_encoder import OpenedEncoder
from .restored_encoder import RestoredEncoder
from .saved_model.saved_model_reader import (
    Restored,
    outside_strategy,
    read_module,
    read_saved_model,
)


def load_encoder(
    source: str | os.PathLike | keras.Model | tf.Module,
    *,
    output: str | Sequence[str] | None = None,
    endpoints: tuple[str, str | None] | None = None,
    dtype: str | None = None,
    open_graph: bool = True,
    trust: bool = False,
    name: str = "encoder",
    verbose: int = 1,
) -> Encoder:
    """Loads a published encoder as a Keras layer with blocks.

    Args:
        source: A folder with a SavedModel or a `.tar` or `.tar.gz` of one, a name on
            the shelf `saved_models/` or in the catalog (`"resnet_v2_50"`), a TF Hub or
            Kaggle address, `kaggle://…`, `gs://…`, `preset://…`, a Keras model, or a
            `tf.Module` whose `__call__` was traced (its variables are copied).
        output: Name of the output, for an encoder that has several, such as
            `"sequence_output"`. Several names give a dict, `None` gives all outputs.
        endpoints: For a SavedModel that cannot be called itself: names of its functions
            for inference and for training; the second may be `None`. By default, these
            usual names are tried: `call_inference` and `call_training`, `inference` and
            `training`, `serve` and `serve_training`.
        dtype: Dtype of the computation, by default Keras's global policy. A SavedModel
            cannot use a mixed policy.
        open_graph: Whether to open the SavedModel's graph. If `False`, the restored
            function is called as a whole, and there is only one block.
        trust: Whether to load a SavedModel with ops that read or write files other than
            its own assets, connect to other machines or run Python. Some of them would
            run on loading. Modules and models in memory are not checked.
        name: Name of the layer.
        verbose: 0 is silent, 1 shows a progress bar while downloading.

    Returns:
        The encoder, with nothing frozen: use `tlkit.freeze` or a schedule.

    Raises:
        SourceError: The source was not found, could not be fetched or is broken, or it
            contains ops that need `trust=True`.
        EncoderError: The source cannot be used as an encoder.

    Example:

    ```python
    encoder = tlkit.load_encoder(tlkit.samples.encoder("resnet50"))
    encoder(images).shape  # TensorShape([8, 1024])
    ```
    """
    if isinstance(source, keras.Model):
        return NativeEncoder(source, name=name, facts=EncoderFacts(source.name))
    if isinstance(source, tf.Module):
        read = functools.partial(read_module, source, endpoints=endpoints)
        label, card, block_of = source.name, None, {}
    else:
        resolved = resolve(source, verbose=verbose)
        if resolved.preset is not None:
            return _preset_encoder(resolved, name)
        read = functools.partial(
            read_saved_model, resolved.path, endpoints=endpoints, trust=trust
        )
        label, card = resolved.name, _with_full_path(resolved.card, resolved.path)
        block_of = read_block_map(resolved.path)
    policy = dtype or keras.config.dtype_policy().name
    # An opened encoder creates its own weights, so the SavedModel's variables need not
    # be created in the strategy's scope.
    restored = _select(outside_strategy(read), output)
    kwargs = {"name": name, "facts": _facts(label, card, restored), "dtype": policy}
    why_not = "it was loaded with open_graph=False"
    if open_graph:
        try:
            return _opened_encoder(restored, block_of, **kwargs)
        except CannotOpen as error:
            why_not = str(error)
    # A `RestoredEncoder` trains the restored variables, so load them in the scope.
    if tf.distribute.has_strategy():
        restored = _select(read(), output)
    return RestoredEncoder(restored, why_not, **kwargs)


def _opened_encoder(
    restored: Restored, block_of: Mapping[str, str], **kwargs
) -> OpenedEncoder:
    """Opens a SavedModel as an encoder with the SavedModel's weights."""
    network, variables = open_network(restored)
    sections = [sorted(section.variables) for section in network.sections]
    by_section = [[variables[p] for p in section] for section in sections]
    encoder = OpenedEncoder(
        variables=[variable.to_json() for variable in variables],
        segments=sections,
        names=names_by_map(by_section, block_of) if block_of else None,
        batch_norms=[network.batch_norms(i) for i in range(len(sections))],
        inputs=specs_to_json(restored.inputs),
        outputs=specs_to_json(restored.outputs),
        digest=network.digest,
        network=network,
        draws=network.needs_seed,
        **kwargs,
    )
    weights = [weight for _, weight in encoder.named_variables]
    for weight, value in zip(weights, restored.variables, strict=True):
        weight.assign(value)
    return encoder


def _select(restored: Restored, output: str | Sequence[str] | None) -> Restored:
    """Selects one or several outputs of the module."""
    if output is None:
        return restored
    outputs = restored.outputs
    names = [output] if isinstance(output, str) else list(output)
    missing = [n for n in names if not isinstance(outputs, dict) or n not in outputs]
    if missing:
        names = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else "one only"
        raise EncoderError(
            f"The encoder has no output {missing[0]!r}. Its outputs: {names}. "
            "Leave `output` out to get all of them."
        )
    numbered = iter(range(len(tf.nest.flatten(outputs))))
    positions = tf.nest.map_structure(lambda _: next(numbered), outputs)
    one = isinstance(output, str)
    chosen = positions[output] if one else {name: positions[name] for name in names}
    return dataclasses.replace(
        restored,
        outputs=outputs[output] if one else {name: outputs[name] for name in names},
        output=output,
        selected=tuple(tf.nest.flatten(chosen)),
    )


def _with_full_path(card: Card | None, folder: pathlib.Path) -> Card | None:
    """Returns the card with the absolute path of a preprocessor in a nearby folder."""
    if card is None or not (card.preprocessor or "").startswith("../"):
        return card
    path = (pathlib.Path(folder) / card.preprocessor).resolve()
    return dataclasses.replace(card, preprocessor=str(path))


def _facts(name: str, card: Card | None, restored: Restored) -> EncoderFacts:
    """Collects the facts from the encoder's card and from its SavedModel."""
    known = {}
    if card is not None:
        fields = ("kind", "image_size", "pixels", "preprocessor", "licence", "tried")
        known = {field: getattr(card, field) for field in fields}
    known["kind"] = known.get("kind") or _kind(restored.inputs)
    return EncoderFacts(
        name,
        output=restored.output if isinstance(restored.output, str) else None,
        takes_training=restored.takes_training,
        host_ops=tuple(restored.host_ops),
        file_ops=tuple(restored.file_ops),
        **known,
        **read_vocabulary(restored.module),
    )


def _kind(inputs: Any) -> str | None:
    flat = tf.nest.flatten(inputs)
    if isinstance(inputs, dict) and all(spec.dtype.is_integer for spec in flat):
        return "text"
    if len(flat) == 1 and flat[0].dtype == tf.string:
        return "text"
    if len(flat) == 1 and flat[0].shape.rank == 4:
        return "image"
    return None


def _preset_encoder(resolved, name: str) -> Encoder:
    keras_nlp = import_extra("keras_nlp", "presets", "preset:// sources")
    backbone = keras_nlp.models.Backbone.from_preset(str(resolved.preset))
    card = resolved.card
    facts = EncoderFacts(resolved.name, preset=str(resolved.preset))
    if card is not None:
        facts = dataclasses.replace(facts, kind=card.kind, pixels=card.pixels)
    return NativeEncoder(backbone, name=name, facts=facts)


def open_network(restored: Restored) -> tuple[Network, list[VariableSpec]]:
    """Opens a restored SavedModel: flattens its functions into a network.

    Returns:
        The network and the descriptions of its variables, by position.

    Raises:
        CannotOpen: The graph cannot be opened; the message gives the reason.
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
            raise CannotOpen("it has inputs by name and bound tensors together")
        graph = flatten(endpoint.function, variables, resources, constants)
        selected = tuple(graph.outputs[i] for i in restored.selected)
        graph = repeat_pixels(dataclasses.replace(graph, outputs=selected))
        graphs[training] = untie_shapes(graph)
    losses = [flatten(loss, variables, resources) for loss in restored.losses]
    vectors = {i for i, v in enumerate(restored.variables) if v.shape.rank <= 1}
    network = Network(graphs, frozenset(vectors), resources, restored.module, losses)
    return network, [_variable(i, restored) for i in range(len(restored.variables))]


def _variable(position: int, restored: Restored) -> VariableSpec:
    variable = restored.variables[position]
    return VariableSpec(
        name=variable.name.split(":")[0],
        shape=tuple(variable.shape),
        dtype=variable.dtype.name,
        learnable=position in restored.learnable,
    )


def read_vocabulary(module: Any) -> dict[str, Any]:
    """Reads `vocab_file` and `do_lower_case`, as Model Garden's exporter writes them.

    Returns:
        A dict with `vocabulary` (a tuple of word pieces) and `lower_case`; an empty
        dict if the module has no vocabulary.
    """
    asset = getattr(module, "vocab_file", None)
    # Any other object with a path might point to a file outside the SavedModel.
    if not isinstance(asset, tf.saved_model.Asset):
        return {}
    data = tf.io.read_file(asset.asset_path).numpy().decode("utf-8")
    pieces = data.removesuffix("\n").split("\n")
    lower_case = getattr(module, "do_lower_case", None)
    return {
        "vocabulary": tuple(piece.removesuffix("\r") for piece in pieces),
        "lower_case": True if lower_case is None else bool(lower_case.numpy()),
    }
