"""The frozen network with its variables as constants, folded into each other."""

import numpy as np
import pytest
import tensorflow as tf

from tests.encoders.compare import assert_close, error, variables_of
from tests.encoders.forms import FORMS
from tlkit.encoders.graph.flattener import flatten
from tlkit.encoders.inference.forward_pass import FrozenForward, fold, frozen_function
from tlkit.encoders.network.section_run import SectionRun

PURE = [name for name, form in FORMS.items() if form.opened is True]
# How many batch norms are left: those of a DenseNet are not behind a convolution of
# their own.
LEFT = {"densenet": 3}


def real_statistics(encoder):
    """Gives batch norms statistics, scales and offsets as training would."""
    generator = np.random.default_rng(6)
    for variable in variables_of(encoder):
        if "variance" in variable.path:
            variable.assign(generator.uniform(0.5, 2.0, variable.shape))
        elif len(variable.shape) == 1 and variable.dtype.startswith("float"):
            variable.assign(variable + generator.normal(0.0, 0.3, variable.shape))


@pytest.mark.parametrize("name", PURE)
def test_outputs_and_cuts_are_the_encoders(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    real_statistics(encoder)
    count = len(encoder.network.sections)
    forward = FrozenForward(encoder, range(1, count))
    results = forward(inputs)
    assert_close(results.outputs, encoder(inputs, training=False), 1e-5)
    assert list(results.cuts) == list(range(1, count))
    for section, tensor in results.cuts.items():
        cut = encoder.network.sections[section - 1].inference.cut
        function = frozen_function(  # alone, without what lies behind
            encoder.network.graphs[False],
            [cut],
            value_of=encoder._value,
            resources=encoder.network.resources,
        )
        (alone,) = function(tf.nest.flatten(inputs))
        assert tensor.dtype == alone.dtype and error(tensor, alone) < 1e-5


@pytest.mark.parametrize("name", [n for n in PURE if FORMS[n].batch_norms])
def test_batch_norms_are_gone(opened, name):
    encoder = opened(name)
    graph = encoder.network.graphs[False]
    folded = fold(graph, graph.outputs, value_of=encoder._value)
    ops = [node.op for node in folded.needed()]
    assert sum(op.startswith("FusedBatchNorm") for op in ops) == LEFT.get(name, 0)
    assert "Rsqrt" not in ops


def test_a_cut_is_where_the_next_section_begins(opened):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    real_statistics(encoder)
    count = len(encoder.network.sections)
    results = FrozenForward(encoder, [2, count - 1], outputs=False)(inputs)
    assert results.outputs is None and sorted(results.cuts) == [2, count - 1]
    section_run = SectionRun(2, count - 1, outputs=(0,), return_cut=False)
    rest = encoder.network.run(section_run, results.cuts[2], [inputs], encoder._value)
    assert_close(rest.outputs[0], encoder(inputs, training=False), 1e-5)


@pytest.mark.parametrize("name", ["keras2", "text"])
def test_a_batch_of_another_size_is_not_traced_again(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    forward = FrozenForward(encoder)
    for size in (4, 1, 3):
        part = tf.nest.map_structure(lambda x, size=size: x[:size], inputs)
        assert_close(forward(part).outputs, encoder(part, training=False), 1e-5)
    assert forward._function.experimental_get_tracing_count() == 1


def test_texts_of_another_length_are_not_traced_again(opened):
    encoder, inputs = opened("text"), FORMS["text"].examples()
    forward = FrozenForward(encoder)
    for length in (6, 2):
        part = tf.nest.map_structure(lambda x, length=length: x[:, :length], inputs)
        assert_close(forward(part).outputs, encoder(part, training=False), 1e-5)
    assert forward._function.experimental_get_tracing_count() == 1


def test_weights_that_change_afterwards_are_not_seen(opened):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    forward = FrozenForward(encoder)
    before = encoder(inputs, training=False)
    for variable in encoder.trainable_variables:
        variable.assign(variable * 1.5 + 0.1)
    after = encoder(inputs, training=False)
    assert error(after, before) > 0.1
    assert_close(forward(inputs).outputs, before, 1e-5)
    assert_close(FrozenForward(encoder)(inputs).outputs, after, 1e-5)


def test_runs_in_a_dataset(opened):
    encoder, inputs = opened("table"), FORMS["table"].examples()
    forward = FrozenForward(encoder)
    dataset = tf.data.Dataset.from_tensors(inputs).map(lambda x: forward(x).outputs)
    (found,) = dataset
    assert_close(found, encoder(inputs, training=False), 1e-6)


def test_a_cut_that_is_not_there_is_named(opened):
    encoder = opened("by_hand")
    with pytest.raises(ValueError, match=r"from 1 to 2.*cuts=\[3\]"):
        FrozenForward(encoder, [3])
    with pytest.raises(ValueError, match="must be wanted"):
        FrozenForward(encoder, outputs=False)


# === Single ops ===

GENERATOR = np.random.default_rng(2)


def normal(*shape):
    return tf.constant(GENERATOR.normal(size=shape).astype("float32"))


def norm(x, name="bn"):
    """A batch norm for inference, with numbers of its own."""
    size = x.shape[-1]
    scale, offset, mean = (normal(size) for _ in range(3))
    variance = tf.exp(normal(size))
    return tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, variance, is_training=False, name=name
    )[0]


def folded(function, *shape):
    """Checks the outputs of a folded function and returns its op types."""
    spec = tf.TensorSpec((None, *shape), tf.float32)
    concrete = tf.function(function).get_concrete_function(spec)
    graph = flatten(concrete, {}, [])
    x = normal(3, *shape)
    nothing = lambda position: None
    expected = tf.nest.flatten(concrete(x))
    found = frozen_function(graph, graph.outputs, value_of=nothing)([x])
    assert_close(found, expected, 1e-5)
    nodes = fold(graph, graph.outputs, value_of=nothing).needed()
    return sorted(node.op for node in nodes if node.op != "Const")


def convolve(x, filters=4, padding="VALID"):
    return tf.nn.conv2d(x, normal(3, 3, x.shape[-1], filters), 1, padding)


@pytest.mark.parametrize(
    ("function", "shape", "left"),
    [
        (lambda x: norm(convolve(x)), (6, 6, 3), ["BiasAdd", "Conv2D"]),
        (
            lambda x: tf.nn.relu(norm(tf.nn.bias_add(convolve(x), normal(4)))),
            (6, 6, 3),
            ["BiasAdd", "Conv2D", "Relu"],
        ),
        (
            lambda x: norm(
                tf.nn.depthwise_conv2d(x, normal(3, 3, 3, 2), [1] * 4, "SAME")
            ),
            (6, 6, 3),
            ["BiasAdd", "DepthwiseConv2dNative"],
        ),
        (
            lambda x: (normal(4) - (convolve(x) * normal(1, 1, 1, 4) + 0.5)) / 3.0,
            (6, 6, 3),
            ["BiasAdd", "Conv2D"],
        ),
        (
            lambda x: normal(5) * tf.matmul(x, normal(5, 4), transpose_b=True) - 2.0,
            (4,),
            ["BiasAdd", "MatMul"],
        ),
        (
            lambda x: convolve(tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]])),
            (6, 6, 3),
            ["Conv2D"],
        ),
    ],
    ids=["norm", "bias and norm", "depthwise", "arithmetic", "product", "pad"],
)
def test_scalings_and_pads_go_into_the_kernel(function, shape, left):
    assert folded(function, *shape) == left


def used_elsewhere(x):
    y = convolve(x)
    return norm(y) + y


def wanted_itself(x):
    y = convolve(x)
    return norm(y), y


def not_behind_a_kernel(x):
    return convolve(tf.nn.relu(norm(x)))


def by_place(x):
    return convolve(x) * normal(1, 4, 1, 4) + normal(4, 1, 1)


def squared(x):
    y = convolve(x)
    return y * y


def padded_with_ones(x):
    return convolve(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0))


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (used_elsewhere, "FusedBatchNormV3"),
        (wanted_itself, "FusedBatchNormV3"),
        (not_behind_a_kernel, "FusedBatchNormV3"),
        (by_place, "Mul"),
        (squared, "Mul"),
        (padded_with_ones, "PadV2"),
    ],
)
def test_ops_that_cannot_go_into_a_kernel_stay(function, op):
    assert folded(function, 6, 6, 3).count(op) == 1


def test_one_kernel_for_two_norms():
    def function(x):
        kernel = normal(3, 3, 3, 4)
        one, two = (norm(tf.nn.conv2d(x * k, kernel, 1, "SAME")) for k in (1.0, 2.0))
        return one + two

    assert "FusedBatchNormV3" not in folded(function, 6, 6, 3)


def test_values_of_variables_alone_are_computed_once():
    def function(x):
        kernel = normal(4, 4)
        kernel = kernel - tf.reduce_mean(kernel, 0)  # standardized, as in BiT
        return tf.split(kernel, 2)[1] @ tf.transpose(x @ kernel)

    assert folded(function, 4) == ["MatMul", "MatMul", "Transpose"]


@pytest.mark.parametrize("epsilon", [1e-12, 1e-3])
def test_layer_norms_keep_their_epsilon(epsilon):
    # tests/encoders notice by this when TensorFlow itself does.
    scale, offset = normal(8), normal(8)

    def function(x):
        gamma, beta = tf.constant(scale.numpy()), tf.constant(offset.numpy())
        mean = tf.reduce_mean(x, [2], keepdims=True)
        squares = tf.math.squared_difference(x, mean)
        variance = tf.reduce_mean(squares, [2], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)

    spec = tf.TensorSpec((None, 5, 8), tf.float32)
    graph = flatten(tf.function(function).get_concrete_function(spec), {}, [])
    x = 0.01 * normal(3, 5, 8)
    found = frozen_function(graph, graph.outputs, value_of=lambda position: None)([x])
    assert_close(found, [function(x)], 1e-5)


def test_a_network_too_large_for_one_graph_is_captured(opened, monkeypatch):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    monkeypatch.setattr("tlkit.encoders.inference.forward_pass.MOST_BYTES", 100)
    forward = FrozenForward(encoder)
    assert_close(forward(inputs).outputs, encoder(inputs, training=False), 1e-5)
    assert len(forward._function.get_concrete_function().captured_inputs) > 9
