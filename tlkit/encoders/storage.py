"""An opened network in files, so that a `.keras` file stands alone."""

from __future__ import annotations

import json
import pathlib

import tensorflow as tf

from ..errors import EncoderError
from .flat_graph import FlatGraph
from .network import Network
from .specs import specs_from_json, specs_to_json


def save_network(network: Network, folder: pathlib.Path) -> None:
    """Writes a network's two graphs into a folder.

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
    notes = {"vectors": sorted(network.vectors)}
    for training, graph in network.graphs.items():
        key = "training" if training else "inference"
        definition = tf.compat.v1.GraphDef(
            library=graph.library, versions=graph.versions
        )
        definition.node.extend(graph.nodes[name] for name in sorted(graph.nodes))
        data = definition.SerializeToString(deterministic=True)
        (folder / f"{key}.pb").write_bytes(data)
        notes[key] = {
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "variables": graph.variables,
            "updates": list(graph.updates.items()),
            "input_specs": specs_to_json(graph.input_specs),
            "value_specs": specs_to_json(dict(graph.value_specs)),
        }
    (folder / "network.json").write_text(json.dumps(notes))


def load_network(folder: pathlib.Path) -> Network:
    """The network that `save_network` wrote."""
    notes = json.loads((folder / "network.json").read_text())
    graphs = {}
    for training, key in ((False, "inference"), (True, "training")):
        definition = tf.compat.v1.GraphDef()
        definition.ParseFromString((folder / f"{key}.pb").read_bytes())
        graphs[training] = FlatGraph(
            nodes={node.name: node for node in definition.node},
            versions=definition.versions,
            library=definition.library,
            inputs=tuple(notes[key]["inputs"]),
            outputs=tuple(notes[key]["outputs"]),
            variables=notes[key]["variables"],
            resources={},
            updates=dict(notes[key]["updates"]),
            input_specs=tuple(specs_from_json(notes[key]["input_specs"])),
            value_specs=specs_from_json(notes[key]["value_specs"]),
        )
    return Network(graphs, frozenset(notes["vectors"]))
