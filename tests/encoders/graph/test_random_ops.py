"""Dropout is repeated by a seed, and differs from call to call."""

import keras
import numpy as np
import tensorflow as tf

import tlkit
from tests.encoders.forms import FORMS
from tlkit.encoders.graph.random_ops import STATELESS, is_random, make_stateless


def test_a_seed_repeats_the_draws(written):
    folder, inputs = written("keras2"), FORMS["keras2"].examples()

    def draws(seed):
        keras.utils.set_random_seed(seed)
        encoder = tlkit.load_encoder(folder)
        found = [encoder(inputs, training=True) for _ in range(3)]
        return [tf.nest.flatten(outputs)[0].numpy() for outputs in found]

    first, again, other = draws(1), draws(1), draws(2)
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.allclose(one, three)
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first[1], first[2])


def test_ops_draw_independently():
    specs = {"RandomUniform": 0.5, "RandomStandardNormal": 0.0, "TruncatedNormal": 0.0}
    with tf.Graph().as_default() as graph:
        for op in specs:
            draw = getattr(tf.raw_ops, op)
            for k in range(2):
                draw(shape=tf.constant([4000]), dtype=tf.float32, name=f"{op}_{k}")
        limits = {"minval": tf.constant(0), "maxval": tf.constant(10)}
        tf.raw_ops.RandomUniformInt(shape=[4000], **limits, name="RandomUniformInt_0")
    nodes = {node.name: node for node in graph.as_graph_def().node}
    seed = make_stateless(nodes)
    assert not {"RandomUniform", "RandomUniformInt"} & {n.op for n in nodes.values()}
    definition = tf.compat.v1.GraphDef(node=[n for k, n in nodes.items() if k != seed])
    names = [f"{op}_{k}:0" for op in specs for k in (0, 1)] + ["RandomUniformInt_0:0"]

    def run(state):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            bound = {f"{seed}:0": tf.constant(state, tf.int32)}
            return session.run(tf.graph_util.import_graph_def(definition, bound, names))

    found, again = run([1, 2]), run([1, 2])
    for i, (op, mean) in enumerate(specs.items()):
        one, two = found[2 * i], found[2 * i + 1]
        assert abs(one.mean() - mean) < 0.05, op
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.1
        np.testing.assert_array_equal(one, again[2 * i])
    assert set(found[-1]) == set(range(10))
    later = run([1, 3])
    assert abs(np.corrcoef(found[0], later[0])[0, 1]) < 0.1


def test_types_of_random_ops():
    assert all(is_random(op) for op in [*STATELESS, *STATELESS.values()])
    assert not is_random("MatMul")


def test_no_seed_without_random_ops(opened):
    encoder = opened("by_hand")
    assert encoder.network.graphs[True].seed is None
    assert not [v for v in encoder.variables if "seed" in v.path]
