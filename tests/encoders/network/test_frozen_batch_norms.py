"""Training graphs with dropout whose batch norms use their running statistics."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import assert_close, error, gradients_of, variables_of
from tests.encoders.forms import FORMS
from tlkit.encoders.network.frozen_batch_norms import with_running_statistics


@pytest.mark.parametrize("name", ["by_hand", "keras3", "tf1", "densenet"])
def test_without_dropout_it_is_the_graph_for_inference(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    network = encoder.network
    graph, frozen = with_running_statistics(network.graphs[True])
    assert len(frozen) == 2 * FORMS[name].batch_norms
    assert not graph.updates
    for variable in variables_of(encoder):  # averages far from those of the batch
        if "moving" in variable.path:
            variable.assign(np.abs(variable.numpy()) + 0.5)
    variables = [v.value for v in encoder.trainable_variables]
    expected = encoder(inputs, training=False)
    slopes = gradients_of(lambda: encoder(inputs, training=False), variables)
    # As if there were dropout everywhere.
    every = frozenset(range(len(network.sections)))
    before = network.frozen_norm_sections
    network.__dict__["frozen_norm_sections"] = every
    try:
        runs = encoder._section_runs(True, frozenset())
        assert any(run.running_statistics for run in runs)
        assert_close(encoder(inputs, training=True), expected, 1e-6)
        found = gradients_of(lambda: encoder(inputs, training=True), variables)
    finally:
        network.__dict__["frozen_norm_sections"] = before
    scale = max(np.linalg.norm(slope) for slope in slopes)
    for one, other in zip(found, slopes, strict=True):
        assert error(one, other) < 1e-4 or np.linalg.norm(other) < 1e-6 * scale


def test_dropout_goes_on(opened):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train=1, batch_norm="frozen")
    before = [v.numpy() for v in variables_of(encoder)]
    draws = [encoder(inputs, training=True).numpy() for _ in range(60)]
    assert not np.allclose(draws[0], draws[1])
    inference = encoder(inputs, training=False)
    alone = np.mean([error(draw, inference) for draw in draws])
    # Statistics of the batch would be 3.9 away, draws are 0.06, their mean 0.035 (the
    # weights of this form are drawn anew in each process).
    assert error(np.mean(draws, axis=0), inference) < 0.95 * alone < 0.3
    for variable, value in zip(variables_of(encoder), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_frozen_blocks_have_no_dropout(opened):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train="head", batch_norm="train")
    one, two = (encoder(inputs, training=True).numpy() for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_an_average_with_an_unknown_update_stays(opened):
    encoder = opened("by_hand")
    graph = encoder.network.graphs[True]
    position, update = next(iter(graph.updates.items()))
    # An update of two statistics: none of them can stand for the other.
    other = list(graph.updates.values())[3]
    node = tf.compat.v1.NodeDef(name="both", op="AddV2", input=[update, other])
    node.attr["T"].type = tf.float32.as_datatype_enum
    odd = dataclasses.replace(
        graph,
        nodes=dict(graph.nodes) | {"both": node},
        updates=dict(graph.updates) | {position: "both:0"},
    )
    changed, frozen = with_running_statistics(odd)
    assert position not in frozen and position in changed.updates
    assert len(frozen) == len(graph.updates) - 1


def test_keras_dropout_keeps_the_state_of_its_generator(tmp_path):
    layers = keras.layers
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="block1_dense")(inputs)
    x = layers.BatchNormalization(name="block1_bn")(x)
    x = layers.Dropout(0.5, name="block1_drop")(x)
    x = layers.Dense(8, name="block2_dense")(x)
    model = keras.Model(inputs, layers.Dropout(0.5, name="block2_drop")(x))
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [tf.TensorSpec((None, 6), tf.float32)]
    for training, endpoint in ((False, "call_inference"), (True, "call_training")):
        archive.add_endpoint(
            endpoint,
            lambda x, training=training: model(x, training=training),
            signature,
        )
    archive.write_out(tmp_path / "archive", verbose=False)
    encoder = tlkit.load_encoder(tmp_path / "archive")
    assert [block.name for block in encoder.blocks] == ["block1", "block2"]
    tlkit.freeze(encoder, train=["block1"], batch_norm="frozen")
    x = tf.ones((4, 6))
    one, two = (encoder(x, training=True).numpy() for _ in range(2))
    assert not np.allclose(one, two)
    states = [v for v in variables_of(encoder) if "seed" in v.path]
    counts = [int(state.numpy()[1]) for state in states]
    assert sorted(counts) == [0, 2]  # that of the frozen block stands still
