"""What every encoder must do, on every form of SavedModel."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import (
    assert_close,
    error,
    variables_of,
    weighted,
    with_gradients,
)
from tests.encoders.forms import FORMS

OPENED = [name for name, form in FORMS.items() if form.opened is True]
every_form = pytest.mark.parametrize("name", FORMS)
opened_form = pytest.mark.parametrize("name", OPENED)


def ways(name):
    """Whether to run as in training; random forms can only be compared as not."""
    return (False,) if FORMS[name].random else (False, True)


def tolerances(name):
    return (1e-13, 1e-10) if name == "float64" else (1e-6, 1e-4)


@every_form
def test_blocks_are_found(opened, name):
    form, encoder = FORMS[name], opened(name)
    assert tuple(block.name for block in encoder.blocks) == form.blocks
    assert sum(block.batch_norms for block in encoder.blocks) == form.batch_norms
    assert encoder.opened is (form.opened is True)
    if form.opened is not True:
        assert form.opened in encoder.why_not_opened


@every_form
def test_each_variable_is_in_one_block(opened, name):
    encoder = opened(name)
    found = [id(v) for block in encoder.blocks for v in block.variables]
    assert len(found) == len(set(found))
    seeds = [v for v in variables_of(encoder) if v.dtype == "int64"]
    assert len(found) + len(seeds) == len(variables_of(encoder))
    for block in encoder.blocks:
        parts = {id(v) for part in block.parts for v in part.variables}
        assert not block.parts or parts == {id(v) for v in block.variables}


@every_form
def test_outputs_gradients_and_averages_are_the_restored_functions(
    opened, restored, name
):
    encoder, module, inputs = opened(name), restored(name), FORMS[name].examples()
    tlkit.freeze(encoder, train="all", batch_norm="train")
    learnable = [i for i, v in enumerate(variables_of(encoder)) if v.trainable]
    own = [variables_of(encoder)[i].value for i in learnable]
    theirs = [module.variables[i] for i in learnable]
    start = [v.numpy() for v in module.variables]
    for training in ways(name):
        found, gradients = with_gradients(
            lambda: encoder(inputs, training=training),  # noqa: B023
            own,
        )
        expected, expected_gradients = with_gradients(
            lambda: module.endpoints[training](inputs),  # noqa: B023
            theirs,
        )
        assert_close(found, expected, tolerances(name)[0])
        scale = max(np.linalg.norm(g) for g in expected_gradients if g is not None)
        pairs = zip(learnable, gradients, expected_gradients, strict=True)
        for i, one, other in pairs:
            label = module.variables[i].name
            assert (one is None) == (other is None), label
            # Biases before a batch norm have a gradient of nothing but rounding.
            if other is not None and np.linalg.norm(other) > 1e-6 * scale:
                assert error(one, other) <= tolerances(name)[1], label
        moved = 0
        triples = zip(variables_of(encoder), module.variables, start, strict=True)
        for one, other, before in triples:
            if other.dtype.is_floating:  # not seeds
                assert error(one.numpy(), other.numpy()) <= tolerances(name)[0]
            moved += not np.array_equal(other.numpy(), before)
            other.assign(before)
        assert moved == 2 * FORMS[name].batch_norms * training


def choices(encoder):
    names = [block.name for block in encoder.blocks]
    parts = [part.name for block in encoder.blocks for part in block.parts]
    return ["head", "all", *([name] for name in names), *([name] for name in parts[:1])]


def is_statistic(variable):
    return "moving" in variable.path


@every_form
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_exactly_the_planned_variables_move(opened, name, batch_norm):
    if batch_norm == "train" and not FORMS[name].batch_norms:
        pytest.skip("it has no batch norms")
    encoder, inputs = opened(name), FORMS[name].examples()
    variables = variables_of(encoder)
    start = [v.numpy() for v in variables]
    for choice in choices(encoder):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        chosen = tlkit.freeze(encoder, train=choice, batch_norm=batch_norm)
        planned = {id(v) for block in chosen for v in block.learnable}
        assert {id(v) for v in encoder.trainable_variables} == planned
        inside = {id(v) for block in chosen for v in block.variables}
        keeps = batch_norm == "frozen" and encoder.opened
        with tf.GradientTape() as tape:
            loss = weighted(encoder(inputs, training=True))
        gradients = tape.gradient(loss, [v.value for v in variables])
        step = [
            (g, v)
            for g, v in zip(gradients, variables, strict=True)
            if g is not None and v.trainable
        ]
        # All that is planned has a gradient, nothing else has one.
        pairs = zip(gradients, variables, strict=True)
        if encoder.opened:
            assert {id(v) for gradient, v in pairs if gradient is not None} == planned
        keras.optimizers.SGD(0.1).apply(*zip(*step, strict=True)) if step else None
        for gradient, variable, before in zip(gradients, variables, start, strict=True):
            moved = not np.array_equal(variable.numpy(), before)
            label = f"{variable.path} with {choice}"
            if is_statistic(variable):
                assert moved == (id(variable) in inside and not keeps), label
            elif id(variable) not in planned:
                assert not moved or variable.dtype == "int64", label
            elif np.linalg.norm(tf.convert_to_tensor(gradient)) > 1e-4:
                assert moved, label


@opened_form
def test_the_rest_from_every_cut_gives_the_whole(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    network = encoder.network
    flat = tf.nest.flatten(inputs)
    seed = tf.constant([3, 4], tf.int32)
    end = len(network.sections) - 1
    for training in (False, True):
        whole = _run(encoder, network, None, 0, end, training, flat, seed)
        assert set(whole.outputs) == set(range(len(network.graphs[training].outputs)))
        # In training, at the last cut only: it has the most before it.
        for i in range(end - 1 if training else 0, end):
            first = _run(encoder, network, None, 0, i, training, flat, seed)
            rest = _run(encoder, network, first.cut, i + 1, end, training, flat, seed)
            both = first.outputs | rest.outputs
            assert set(both) == set(whole.outputs)
            for position, expected in whole.outputs.items():
                assert error(both[position], expected) <= tolerances(name)[0]


def _run(encoder, network, cut, first, last, training, flat, seed):
    from tlkit.encoders.network.section_run import SectionRun

    inside = range(first, last + 1)
    outputs = range(len(network.graphs[training].outputs))
    section_run = SectionRun(
        first=first,
        last=last,
        training=training,
        running_statistics=False,
        trainable=frozenset(),
        outputs=tuple(
            i for i in outputs if network.section_of_output(i, training) in inside
        ),
        updates=(),
        return_cut=last + 1 < len(network.sections),
    )
    return network.run(section_run, cut, flat, encoder._value, seed)


@opened_form
def test_graph_and_xla_give_what_eager_gives(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    tlkit.freeze(encoder, train=1, batch_norm="frozen")
    expected = encoder(inputs, training=False)
    # XLA compiles the training step of every form in `test_xla_report`.
    kinds = [False, True] if name in ("keras3", "tf1", "shared", "swish") else [False]
    for jit in kinds:

        @tf.function(jit_compile=jit)
        def step():
            with tf.GradientTape() as tape:
                outputs = encoder(inputs, training=False)
                loss = tf.add_n([tf.reduce_sum(x) for x in tf.nest.flatten(outputs)])
            return outputs, tape.gradient(
                loss, [v.value for v in encoder.trainable_variables]
            )

        outputs, gradients = step()
        assert_close(outputs, expected, 1e-5)
        assert all(g is not None for g in gradients)
        tf.function(lambda: encoder(inputs, training=True), jit_compile=jit)()  # noqa: B023


@every_form
def test_it_stands_in_a_functional_model(opened, name):
    encoder, inputs = opened(name), FORMS[name].examples()
    model = functional(encoder, inputs)
    assert_close(model(inputs), encoder(inputs), 1e-6)
    symbolic = tf.nest.flatten(model.output)
    for tensor, value in zip(symbolic, tf.nest.flatten(encoder(inputs)), strict=True):
        assert len(tensor.shape) == len(value.shape)
        assert all(
            a in (None, b) for a, b in zip(tensor.shape, value.shape, strict=True)
        )


def functional(encoder, inputs):
    def symbolic(tensor, name="inputs"):
        count, *shape = tensor.shape
        return keras.Input(shape, batch_size=count, dtype=tensor.dtype, name=name)

    if tf.is_tensor(inputs):
        given = symbolic(inputs)
    else:
        given = {name: symbolic(tensor, name) for name, tensor in inputs.items()}
    return keras.Model(given, encoder(given))


def test_names_of_forms_are_words():
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in FORMS)
