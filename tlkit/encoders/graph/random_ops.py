"""Random ops whose draws can be repeated.

A published dropout draws from a generator that the process keeps for itself, so no
seed repeats it. Here each random op becomes the stateless one, keyed by the layer's
seed (which changes with every call) and by its own name.
"""

from __future__ import annotations

import hashlib

import tensorflow as tf

from .flat_graph import attribute, constant, make_node, type_attribute

STATELESS = {
    "RandomUniform": "StatelessRandomUniform",
    "RandomStandardNormal": "StatelessRandomNormal",
    "TruncatedNormal": "StatelessTruncatedNormal",
    "RandomUniformInt": "StatelessRandomUniformInt",
}
OTHERS = {"TruncatedNormal", "StatelessTruncatedNormal", "Multinomial"}
SEED = "tlkit/seed"


def is_random(op: str) -> bool:
    """Whether an op of that type draws random numbers."""
    return "Random" in op or op in OTHERS


def key_random_ops(nodes: dict[str, tf.compat.v1.NodeDef]) -> str | None:
    """Makes random ops stateless, in place.

    Args:
        nodes: The nodes of a pure graph.

    Returns:
        Name of the placeholder of the seed, int32 `[2]`; `None` if nothing is random.
    """
    drawing = [node for node in nodes.values() if node.op in STATELESS]
    for node in drawing:
        _key(nodes, node)
    if not drawing:
        return None
    shape = attribute(shape=tf.TensorShape([2]).as_proto())
    placeholder = {"dtype": type_attribute(tf.int32), "shape": shape}
    nodes[SEED] = make_node(SEED, "Placeholder", [], **placeholder)
    return SEED


def _key(nodes: dict[str, tf.compat.v1.NodeDef], node) -> None:
    own, seed = f"{node.name}/key", f"{node.name}/seed"
    digest = hashlib.sha256(node.name.encode()).digest()
    # Half of the numbers, so that adding the layer's seed rarely overflows; it may.
    # And int32, since XLA has no stateless ops of 64 bit seeds.
    keys = [int.from_bytes(digest[i : i + 4], "big") >> 2 for i in (0, 4)]
    nodes[own] = constant(own, keys, tf.int32)
    int32 = type_attribute(tf.int32)
    nodes[seed] = make_node(seed, "AddV2", [SEED, own], T=int32)
    dtype = node.attr["Tout" if node.op == "RandomUniformInt" else "dtype"]
    shape, *limits = node.input
    new = make_node(
        node.name,
        STATELESS[node.op],
        [shape, seed, *limits],
        dtype=dtype,
        T=node.attr["T"],
        Tseed=int32,
    )
    node.CopyFrom(new)
