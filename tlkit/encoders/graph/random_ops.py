"""Makes the random ops of a graph repeatable.

The dropout of a published encoder draws from TensorFlow's global generator, so the seed
of a run could not repeat it. Each random op is therefore replaced by its stateless
form, which takes a seed. Every call passes a new seed, to which each op adds a hash of
its name, so that no two ops draw the same numbers.
"""

import hashlib

import tensorflow as tf

from .flat_graph import Nodes, add_constant, add_node

STATELESS = {
    "RandomUniform": "StatelessRandomUniform",
    "RandomStandardNormal": "StatelessRandomNormal",
    "TruncatedNormal": "StatelessTruncatedNormal",
    "RandomUniformInt": "StatelessRandomUniformInt",
}
# Random ops whose type does not contain "Random".
_OTHERS = {"TruncatedNormal", "StatelessTruncatedNormal", "Multinomial"}
_SEED = "tlkit/seed"


def is_random(op: str) -> bool:
    """Tells whether ops of a type, such as `"RandomUniform"`, draw random numbers."""
    return "Random" in op or op in _OTHERS


def make_stateless(nodes: Nodes) -> str | None:
    """Replaces the random ops of a pure graph by stateless ones, in place.

    Returns:
        Name of the new placeholder for the seed, int32 `[2]`; `None` if the graph has
        no random ops.
    """
    random_nodes = [node for node in nodes.values() if node.op in STATELESS]
    for node in random_nodes:
        _replace(nodes, node)
    if not random_nodes:
        return None
    attributes = {"dtype": tf.int32, "shape": tf.TensorShape([2])}
    return add_node(nodes, _SEED, "Placeholder", [], **attributes)


def _replace(nodes: Nodes, node) -> None:
    digest = hashlib.sha256(node.name.encode()).digest()
    # 30 bits: the sum with the call's seed rarely overflows, which does no harm.
    # int32, since XLA has no stateless ops with 64-bit seeds.
    numbers = [int.from_bytes(digest[i : i + 4], "big") >> 2 for i in (0, 4)]
    key = add_constant(nodes, f"{node.name}/key", numbers, tf.int32)
    seed = add_node(nodes, f"{node.name}/seed", "AddV2", [_SEED, key], T=tf.int32)
    shape, *limits = node.input
    add_node(
        nodes,
        node.name,
        STATELESS[node.op],
        [shape, seed, *limits],
        dtype=node.attr["Tout" if node.op == "RandomUniformInt" else "dtype"],
        T=node.attr["T"],
        Tseed=tf.int32,
    )
