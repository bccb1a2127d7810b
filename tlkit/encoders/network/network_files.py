"""Stores an opened network as files in a `.keras` file, and converts specs to JSON.

A folder holds `network.json` and one `.pb` file for each graph and custom gradient. It
does not hold the values of variables: Keras saves them as weights of the layer.
"""

import dataclasses
import json
import pathlib
from typing import Any

import tensorflow as tf

from ...errors import EncoderError
from ..graph.custom_gradients import GradientGraph
from ..graph.flat_graph import FlatGraph
from ..saved_model.trust import check_graph_ops
from .network import Network

_GRAPH_NAMES = {False: "inference", True: "training"}


@dataclasses.dataclass(frozen=True)
class VariableSpec:
    """Describes a variable of an encoder.

    Args:
        name: Its name in the SavedModel, without the `:0`.
        shape: Its shape.
        dtype: Name of its dtype, such as `"float32"`.
        learnable: Whether the SavedModel allows training it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    learnable: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dict for JSON."""
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


def save_network(network: Network, folder: pathlib.Path) -> None:
    """Writes a network's graphs into a folder.

    Raises:
        EncoderError: The network uses lookup tables of its SavedModel, which a `.keras`
            file cannot hold.
    """
    if network.resources:
        raise EncoderError(
            f"This encoder uses {len(network.resources)} lookup table(s) of its "
            "SavedModel, which a .keras file cannot hold. Save the weights with "
            "model.save_weights(path), or the served model with tlkit.export."
        )
    notes: dict[str, Any] = {"vectors": sorted(network.vectors)}
    for training, name in _GRAPH_NAMES.items():
        notes[name] = _save_graph(network.graphs[training], folder, name)
    names = [f"loss_{i}" for i in range(len(network.losses))]
    for name, graph in zip(names, network.losses, strict=True):
        notes[name] = _save_graph(graph, folder, name)
    (folder / "network.json").write_text(json.dumps(notes | {"losses": names}))


def load_network(folder: pathlib.Path, *, trust: bool = False) -> Network:
    """Reads the network that `save_network` wrote.

    Raises:
        SourceError: A graph has ops that read or write files, connect to other machines
            or run Python, and `trust` is false.
    """
    notes = json.loads((folder / "network.json").read_text())

    def load(name: str) -> FlatGraph:
        return _load_graph(notes[name], folder, name, trust)

    return Network(
        {training: load(name) for training, name in _GRAPH_NAMES.items()},
        frozenset(notes["vectors"]),
        losses=[load(name) for name in notes["losses"]],
    )


def _save_graph(graph: FlatGraph, folder: pathlib.Path, name: str) -> dict[str, Any]:
    """Writes the graph's nodes to a file; returns its other fields as JSON values."""
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    definition.node.extend(graph.nodes[name] for name in sorted(graph.nodes))
    _write(folder / f"{name}.pb", definition)
    gradients = {}
    for i, (key, gradient) in enumerate(sorted(graph.gradients.items())):
        file = f"{name}_gradient_{i}.pb"
        _write(folder / file, gradient.definition)
        fields = {"inputs": gradient.inputs, "outputs": gradient.outputs}
        gradients[key] = {"file": file} | fields
    return {
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "variables": graph.variables,
        "updates": list(graph.updates.items()),
        "input_specs": specs_to_json(graph.input_specs),
        "value_specs": specs_to_json(dict(graph.value_specs)),
        "gradients": gradients,
        "seed": graph.seed,
    }


def _load_graph(
    notes: dict[str, Any], folder: pathlib.Path, name: str, trust: bool
) -> FlatGraph:
    definition = _read(folder / f"{name}.pb", trust)
    gradients = {
        key: GradientGraph(
            _read(folder / fields["file"], trust),
            tuple(fields["inputs"]),
            tuple(fields["outputs"]),
        )
        for key, fields in notes["gradients"].items()
    }
    return FlatGraph(
        nodes={node.name: node for node in definition.node},
        versions=definition.versions,
        library=definition.library,
        inputs=tuple(notes["inputs"]),
        outputs=tuple(notes["outputs"]),
        variables=notes["variables"],
        resources={},
        updates=dict(notes["updates"]),
        input_specs=tuple(specs_from_json(notes["input_specs"])),
        value_specs=specs_from_json(notes["value_specs"]),
        gradients=gradients,
        seed=notes["seed"],
    )


def _write(path: pathlib.Path, definition: tf.compat.v1.GraphDef) -> None:
    path.write_bytes(definition.SerializeToString(deterministic=True))


def _read(path: pathlib.Path, trust: bool) -> tf.compat.v1.GraphDef:
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    check_graph_ops(definition, trust=trust)
    return definition


def specs_to_json(specs: Any) -> Any:
    """Converts a nest of `tf.TensorSpec` to lists, dicts and strings.

    >>> specs_to_json([tf.TensorSpec([None, 3], tf.float32)])
    {'list': [{'shape': [None, 3], 'dtype': 'float32'}]}
    """
    if isinstance(specs, dict):
        items = {key: specs_to_json(value) for key, value in specs.items()}
        return {"dict": items}
    if isinstance(specs, (list, tuple)):
        return {"list": [specs_to_json(value) for value in specs]}
    shape = None if specs.shape.rank is None else list(specs.shape)
    return {"shape": shape, "dtype": specs.dtype.name}


def specs_from_json(value: Any) -> Any:
    """Converts the result of `specs_to_json` back to a nest of `tf.TensorSpec`."""
    if "dict" in value:
        return {key: specs_from_json(item) for key, item in value["dict"].items()}
    if "list" in value:
        return [specs_from_json(item) for item in value["list"]]
    return tf.TensorSpec(value["shape"], tf.as_dtype(value["dtype"]))
