"""An opened network in files, so that a `.keras` file stands alone.

What goes in, what comes out and what is learned, in a form that JSON can hold.
"""

from __future__ import annotations

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

GRAPHS = {False: "inference", True: "training"}


def save_network(network: Network, folder: pathlib.Path) -> None:
    """Writes a network's graphs into a folder.

    Raises:
        EncoderError: The network leans on tables of its SavedModel, which cannot ride
            along.
    """
    if network.resources:
        raise EncoderError(
            f"This encoder uses {len(network.resources)} lookup table(s) of its "
            "SavedModel, which a .keras file cannot hold. Save the weights with "
            "model.save_weights(path), or the served model with tlkit.export."
        )
    notes: dict[str, Any] = {"vectors": sorted(network.vectors)}
    for training, key in GRAPHS.items():
        notes[key] = _save_graph(network.graphs[training], folder, key)
    keys = [f"loss_{i}" for i in range(len(network.losses))]
    for key, graph in zip(keys, network.losses, strict=True):
        notes[key] = _save_graph(graph, folder, key)
    (folder / "network.json").write_text(json.dumps(notes | {"losses": keys}))


def load_network(folder: pathlib.Path, *, trust: bool = False) -> Network:
    """The network that `save_network` wrote.

    Raises:
        SourceError: It does more than compute, and is not trusted.
    """
    notes = json.loads((folder / "network.json").read_text())
    load = lambda key: _load_graph(notes[key], folder, key, trust)
    return Network(
        {kind: load(key) for kind, key in GRAPHS.items()},
        frozenset(notes["vectors"]),
        losses=[load(key) for key in notes["losses"]],
    )


def _save_graph(graph: FlatGraph, folder: pathlib.Path, key: str) -> dict[str, Any]:
    """Writes the graph's nodes; what is left to know is given back, for JSON."""
    definition = tf.compat.v1.GraphDef(library=graph.library, versions=graph.versions)
    definition.node.extend(graph.nodes[name] for name in sorted(graph.nodes))
    _write(folder / f"{key}.pb", definition)
    gradients = {}
    for i, (name, gradient) in enumerate(sorted(graph.gradients.items())):
        file = f"{key}_gradient_{i}.pb"
        _write(folder / file, gradient.definition)
        fields = {"inputs": gradient.inputs, "outputs": gradient.outputs}
        gradients[name] = {"file": file} | fields
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
    notes: dict[str, Any], folder: pathlib.Path, key: str, trust: bool
) -> FlatGraph:
    definition = _read(folder / f"{key}.pb", trust)
    gradients = {
        name: GradientGraph(
            _read(folder / found["file"], trust),
            tuple(found["inputs"]),
            tuple(found["outputs"]),
        )
        for name, found in notes["gradients"].items()
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


# === Specs ===


@dataclasses.dataclass(frozen=True)
class VariableSpec:
    """What a variable of an encoder is.

    Args:
        name: Its name in the SavedModel, without the `:0`.
        shape: Its shape.
        dtype: Name of its dtype, such as `"float32"`.
        learnable: Whether the SavedModel says that it may be trained.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    learnable: bool

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"shape": list(self.shape)}


def specs_to_json(specs: Any) -> Any:
    """Writes a nest of `tf.TensorSpec` as lists, dicts and strings."""
    if isinstance(specs, dict):
        items = {key: specs_to_json(value) for key, value in specs.items()}
        return {"dict": items}
    if isinstance(specs, (list, tuple)):
        return {"list": [specs_to_json(value) for value in specs]}
    shape = None if specs.shape.rank is None else list(specs.shape)
    return {"shape": shape, "dtype": specs.dtype.name}


def specs_from_json(value: Any) -> Any:
    """The nest of `tf.TensorSpec` that `specs_to_json` wrote."""
    if "dict" in value:
        return {key: specs_from_json(item) for key, item in value["dict"].items()}
    if "list" in value:
        return [specs_from_json(item) for item in value["list"]]
    return tf.TensorSpec(value["shape"], tf.as_dtype(value["dtype"]))
