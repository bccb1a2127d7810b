"""Flat graphs are pure, and functions without a pure form are called whole."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.forms import FORMS, _trace
from tlkit.encoders.graph.flat_graph import CannotOpen, node_of, tensor_of
from tlkit.encoders.graph.flattener import inline
from tlkit.encoders.graph.tensor_shapes import static_shapes

PURE = [name for name, form in FORMS.items() if form.opened is True]
STATEFUL = {"ReadVariableOp", "VarHandleOp", "AssignVariableOp", "AssignSubVariableOp"}
STATEFUL |= {"RandomUniform", "PartitionedCall", "StatefulPartitionedCall", "NoOp"}


@pytest.mark.parametrize("name", PURE)
def test_flat_graphs_are_pure(opened, name):
    network = opened(name).network
    for graph in network.graphs.values():
        assert not STATEFUL & {node.op for node in graph.nodes.values()}
        for node in graph.nodes.values():
            assert not any(tensor.startswith("^") for tensor in node.input)
            assert {node_of(tensor) for tensor in node.input} <= set(graph.nodes)
        ends = [*graph.outputs, *graph.updates.values()]
        assert {node_of(end) for end in ends} <= set(graph.nodes)


class _Writes(tf.Module):
    """Uses a variable in a way that has no pure form."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.count = tf.Variable([1.0, 2.0], name="count")

    @tf.function
    def __call__(self, x, training=False):
        if self.how == "twice":
            self.count.assign_add([1.0, 1.0])
            self.count.assign_add([1.0, 1.0])
            return x
        if self.how == "read again":
            self.count.assign_add([1.0, 1.0])
            return x + self.count
        self.count.scatter_add(tf.IndexedSlices([1.0], [0]))
        return x


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("twice", "writes a variable twice"),
        ("read again", "reads a variable again after writing it"),
        ("scatter", "through the op ResourceScatterAdd"),
    ],
)
def test_a_function_without_a_pure_form_is_called_whole(tmp_path, how, why):
    module = _Writes(how)
    _trace(module, tf.TensorSpec((None, 2), tf.float32))
    tf.saved_model.save(module, str(tmp_path / "module"))
    encoder = tlkit.load_encoder(tmp_path / "module")
    assert not encoder.opened and why in encoder.why_not_opened
    x = tf.zeros((1, 2))
    first = encoder(x).numpy()
    expected = module(x).numpy()
    np.testing.assert_allclose(first, expected)


def test_a_read_before_a_write_is_pure(tmp_path):
    class Counts(tf.Module):
        def __init__(self):
            super().__init__()
            self.count = tf.Variable([[1.0, 2.0]], name="count")

        @tf.function
        def __call__(self, x, training=False):
            y = x + self.count
            if training:
                self.count.assign(self.count * 2.0)
            return y

    module = Counts()
    _trace(module, tf.TensorSpec((None, 2), tf.float32))
    tf.saved_model.save(module, str(tmp_path / "counts"))
    encoder = tlkit.load_encoder(tmp_path / "counts")
    assert encoder.opened
    tlkit.freeze(encoder, train="all", batch_norm="train")
    x = tf.zeros((1, 2))
    found = [encoder(x, training=True).numpy()[0].tolist() for _ in range(3)]
    assert found == [[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]]


def test_shapes_follow_from_the_inputs(opened):
    encoder = opened("keras2")
    graph = encoder.network.graphs[False]
    shapes = static_shapes(graph, [graph.outputs[0], tensor_of(graph.inputs[0])])
    assert [shape.as_list() for shape in shapes] == [[None, 4], [None, None, None, 3]]


def test_the_private_inlining_still_works():
    """TensorFlow has no public way to inline calls."""
    inner = tf.function(lambda x: x + 1.0)
    outer = tf.function(lambda x: inner(inner(x)) * 2.0)
    function = outer.get_concrete_function(tf.TensorSpec((2,), tf.float32))
    ops = [node.op for node in inline(function).node]
    assert ops.count("AddV2") == 2 and not {"PartitionedCall"} & set(ops)

    looping = tf.function(
        lambda x: tf.while_loop(lambda y: y < 3.0, lambda y: y + 1, [x])
    )
    with pytest.raises(CannotOpen, match="control flow"):
        inline(looping.get_concrete_function(tf.TensorSpec((), tf.float32)))
