"""Custom gradients move with the graph; computing a missing one raises an error."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import error, gradients_of
from tests.encoders.forms import FORMS, _trace, write_swish_without
from tlkit.encoders.graph.custom_gradients import find_function
from tlkit.errors import EncoderError


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without") / "swish"
    write_swish_without(folder)
    return folder


def test_a_custom_gradient_is_not_the_derivative(opened):
    encoder, inputs = opened("swish"), FORMS["swish"].examples()
    kernel = encoder.blocks[-1].learnable[0]
    (found,) = gradients_of(lambda: encoder(inputs), [kernel.value])
    step = np.zeros((6, 6), "float32")
    step[2, 3] = 1e-2
    start = kernel.numpy()
    sums = []
    for sign in (1, -1):
        kernel.assign(start + sign * step)
        outputs = encoder(inputs).numpy().astype("float64")
        weights = np.cos(np.arange(outputs.size)).reshape(outputs.shape)
        sums.append((outputs * weights).sum())
    slope = (sums[0] - sums[1]) / 2e-2
    assert found[2, 3] == pytest.approx(3 * slope, rel=1e-2)  # as the form says


def test_gradients_are_named_by_their_content(opened, written):
    one, two = opened("swish"), tlkit.load_encoder(written("swish"))
    names = [set(e.network.graphs[False].gradients) for e in (one, two)]
    assert names[0] == names[1] and len(names[0]) >= 2
    assert all(name.startswith("TlkitGradient-") for name in names[0])


def test_computing_a_gradient_that_was_not_saved_raises_an_error(without):
    encoder = tlkit.load_encoder(without)
    inputs = FORMS["swish"].examples()
    assert encoder(inputs).shape == (4, 6)  # forward needs none of it
    with pytest.raises(EncoderError, match="experimental_custom_gradients") as caught:
        gradients_of(lambda: encoder(inputs), [encoder.trainable_variables[0].value])
    assert "IdentityN" in str(caught.value)


def test_frozen_blocks_need_no_gradient(without):
    encoder = tlkit.load_encoder(without)
    tlkit.freeze(encoder, train="head")
    found = gradients_of(
        lambda: encoder(FORMS["swish"].examples()), [v.value for v in encoder.weights]
    )
    assert found == [None, None]


def test_inspect_counts_missing_gradients(without, written):
    assert tlkit.inspect(without, verbose=0).missing_gradients == 4
    assert "custom gradients" in str(tlkit.inspect(without, verbose=0))
    assert tlkit.inspect(written("swish"), verbose=0).missing_gradients == 0


def test_the_private_lookup_still_works(restored):
    """TensorFlow keeps a restored custom gradient in a closure only."""
    module = restored("swish").module
    graph = module.__call__.concrete_functions[0].graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    named = [
        node.attr["_gradient_op_type"].s.decode()
        for body in bodies
        for node in body
        if node.op == "IdentityN"
    ]
    functions = [find_function(name) for name in named]
    assert functions and all(hasattr(f, "captured_inputs") for f in functions)
    with pytest.raises(LookupError):
        find_function("CustomGradient-that-nobody-made")


def test_an_encoder_with_custom_gradients_can_be_written_again(opened, tmp_path):
    encoder, inputs = opened("swish"), FORMS["swish"].examples()
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(
        lambda x, training=False: encoder(x, training=training)
    )
    module.variables = [v.value for v in encoder.variables]
    _trace(module, tf.TensorSpec((None, 6), tf.float32))
    tf.saved_model.save(module, str(tmp_path / "1"))
    again = tlkit.load_encoder(tmp_path / "1")
    assert again.opened
    kernels = [[v.value for v in e.trainable_variables] for e in (encoder, again)]
    expected = gradients_of(lambda: encoder(inputs), kernels[0])
    found = gradients_of(lambda: again(inputs), kernels[1])
    for one, other in zip(found, expected, strict=True):
        assert error(one, other) <= 1e-5
