"""Train steps of encoders under XLA: what a TPU is given."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import error, gradients_of, variables_of
from tests.encoders.compiled_step import make_step
from tests.encoders.forms import FORMS, _images, _save_keras2
from tests.encoders.hlo import Hlo, read_hlo
from tests.encoders.test_forms import is_statistic
from tlkit.encoders import why_not_compiled
from tlkit.encoders.graph.flat_graph import add_constant, add_node
from tlkit.encoders.network.network import Network

LABELS = tf.constant([0, 1, 2, 0])
# Each form once, each thing that a phase may train, and batch norms both ways.
CASES = [
    ("keras2", "all", "train"),
    ("text", 2, "frozen"),
    ("by_hand", "all", "train"),
    ("float64", 1, "train"),
    ("keras3", "head", "frozen"),
    ("reexport", 1, "frozen"),
    ("tf1", ["stem"], "train"),
    ("shared", "all", "frozen"),
    ("unet", ["entry"], "frozen"),
    ("densenet", 1, "frozen"),
    ("nameless", 1, "frozen"),
    ("swish", "all", "frozen"),
]
DRAWN = [
    ("keras2", ["conv1", "conv3.1"], "train"),
    ("text", ["embeddings"], "frozen"),
    ("reexport", "all", "train"),
]


def test_every_form_has_a_case():
    compiled = {n for n, f in FORMS.items() if f.opened is True and n != "table"}
    assert {name for name, *_ in CASES} == compiled


class Classifier(keras.layers.Layer):
    """An encoder, all of whose outputs go into a dense layer."""

    def __init__(self, encoder, inputs):
        super().__init__()
        self.encoder = encoder
        self.head = keras.layers.Dense(3)
        self(inputs)
        values = np.random.default_rng(0).normal(size=self.head.kernel.shape)
        self.head.kernel.assign(values / 3)

    def call(self, inputs, training=False):
        outputs = tf.nest.flatten(self.encoder(inputs, training=training))
        rows = [tf.reshape(x, [len(LABELS), -1]) for x in outputs]
        return self.head(tf.concat(rows, 1))


@pytest.fixture
def steady(opened):
    """Gives the encoder of a form that takes one half for every random number.

    XLA makes other fractions of the same random bits than TensorFlow does.
    """
    changed = []

    def load(name):
        encoder = opened(name)
        if FORMS[name].random:
            changed.append((encoder, encoder.network))
            encoder._network = _without_draws(encoder.network)
        return encoder

    yield load
    for encoder, network in changed:
        encoder._network = network


def _without_draws(network):
    graph = network.graphs[True]
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if node.op == "StatelessRandomUniform":
            half = add_constant(nodes, f"{name}/half", 0.5, tf.float32)
            types = {"T": tf.float32, "index_type": node.attr["T"]}
            add_node(nodes, name, "Fill", [node.input[0], half], **types)
    graphs = network.graphs | {True: dataclasses.replace(graph, nodes=nodes)}
    return Network(graphs, network.vectors, losses=network.losses)


def one_step(model, inputs, jit_compile):
    """A step from the model's weights, and what it gave: gradients and weights."""
    variables = model.trainable_variables
    step = make_step(model, variables, inputs, jit_compile=jit_compile)
    before = [v.numpy() for v in model.variables]
    loss, gradients = step(inputs, LABELS)
    found = float(loss), [g.numpy() for g in gradients]
    after = [v.numpy() for v in model.variables]
    return step, found, before, after


def put_back(model, values):
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


@pytest.mark.parametrize("name, train, batch_norm", CASES)
def test_a_step_is_compiled_once_and_does_what_it_does_uncompiled(
    steady, name, train, batch_norm
):
    encoder, inputs = steady(name), FORMS[name].examples()
    tlkit.freeze(encoder, train=train, batch_norm=batch_norm)
    model = Classifier(encoder, inputs)
    _, (loss, expected), start, after = one_step(model, inputs, jit_compile=False)
    put_back(model, start)
    step, (found, gradients), _, compiled = one_step(model, inputs, jit_compile=True)
    assert found == pytest.approx(loss, rel=1e-5)
    scale = max(np.linalg.norm(g) for g in expected)
    pairs = zip(model.trainable_variables, gradients, expected, strict=True)
    # The statistics of a small batch take some digits more, and so do their means,
    # which are sums that nearly vanish.
    tolerance = 1e-5 if batch_norm == "frozen" else 1e-4
    for variable, one, other in pairs:
        # Biases before a batch norm have a gradient of nothing but rounding.
        if np.linalg.norm(other) > 1e-5 * scale:
            assert error(one, other) <= tolerance, variable.path
    trainable = {id(v) for v in model.trainable_variables}
    for variable, *values in zip(model.variables, start, after, compiled, strict=True):
        before, without, with_xla = values
        moved = not np.array_equal(before, with_xla)
        assert moved == (not np.array_equal(before, without)), variable.path
        if is_statistic(variable):
            assert error(with_xla, without) <= tolerance, variable.path
        elif id(variable) not in trainable:
            assert not moved or variable.dtype == "int64"
    assert read_hlo(step, inputs, LABELS) == Hlo(0, ())
    others = tf.nest.map_structure(lambda x: tf.roll(x, 1, 0), inputs)
    assert np.isfinite(step(others, tf.roll(LABELS, 1, 0))[0])
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name, train, batch_norm", DRAWN)
def test_dropout_makes_no_constants_and_no_dynamic_shapes(
    opened, name, train, batch_norm
):
    encoder, inputs = opened(name), FORMS[name].examples()
    tlkit.freeze(encoder, train=train, batch_norm=batch_norm)
    model = Classifier(encoder, inputs)
    step = make_step(model, model.trainable_variables, inputs, jit_compile=True)
    assert read_hlo(step, inputs, LABELS) == Hlo(0, ())


# === What is read from the HLO ===


def test_constants_and_dynamic_shapes_are_seen():
    @tf.function(jit_compile=True)
    def filled(size, value):
        return tf.fill(size, value)

    arguments = tf.constant([2, 3]), tf.constant(1.0)
    assert read_hlo(filled, *arguments).constants == 1
    kept = tf.function(lambda x: tf.boolean_mask(x, x > 0), jit_compile=True)
    assert read_hlo(kept, tf.constant([1.0, -1.0, 2.0])).dynamic[0].endswith("[<=3]")


def test_a_function_in_a_step_would_make_constants_of_its_inputs():
    """Why nodes are rebuilt instead of imported into a function."""
    kernel, inputs = tf.Variable(tf.ones([3, 3])), tf.ones([2, 3])

    def forward(x):
        return tf.transpose(x @ kernel)

    for inner, constants in ((forward, 0), (tf.function(forward), 1)):

        @tf.function(jit_compile=True)
        def step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(inner(x) ** 2)  # noqa: B023
            return tape.gradient(loss, kernel)

        assert (read_hlo(step, inputs).constants > 0) == constants


# === Dropout ===


def test_dropout_is_as_strong_as_without_xla_and_repeats(opened):
    encoder, inputs = opened("keras2"), FORMS["keras2"].examples()
    tlkit.freeze(encoder, train="all", batch_norm="frozen")
    state = encoder._seeds.state
    means, spreads = [], []
    for jit in (False, True):

        @tf.function(jit_compile=jit)
        def run():
            return encoder(inputs, training=True)

        state.assign([1, 2])
        draws = np.array([run() for _ in range(200)])
        state.assign([1, 2])
        np.testing.assert_array_equal(run(), draws[0])
        assert not np.allclose(draws[0], draws[1])
        means.append(draws.mean(axis=0))
        spreads.append(draws.std(axis=0))
    assert np.all(np.abs(means[0] - means[1]) < 6 * spreads[0] / np.sqrt(100))
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=0.5)


# === Upsampling ===


def _upsampling(folder, layer):
    import tf_keras

    inputs = tf_keras.Input((None, None, 3))
    x = tf_keras.layers.Conv2D(4, 3, 2, padding="same", name="entry")(inputs)
    x = layer(tf_keras)(x)
    x = tf_keras.layers.Conv2D(2, 3, name="exit")(x)
    _save_keras2(inputs, x, folder)


UPSAMPLINGS = {
    "twice": (lambda k: k.layers.UpSampling2D(), True),
    "more": (lambda k: k.layers.UpSampling2D((3, 2)), True),
    "fixed": (lambda k: k.layers.Resizing(8, 8, "nearest"), False),
}


@pytest.mark.parametrize("kind", UPSAMPLINGS)
def test_pixels_are_repeated_where_factors_are_whole(tmp_path, kind):
    layer, repeated = UPSAMPLINGS[kind]
    _upsampling(tmp_path / "1", layer)
    encoder = tlkit.load_encoder(tmp_path / "1")
    for graph in encoder.network.graphs.values():
        ops = {node.op for node in graph.nodes.values()}
        assert ("ResizeNearestNeighbor" in ops) == (not repeated)
    whole = tlkit.load_encoder(tmp_path / "1", open_graph=False)
    learnable = [v.value for v in encoder.trainable_variables]
    assert len(learnable) == len(whole.trainable_variables) == 4
    for size in (8, 7):
        images = _images(size)
        np.testing.assert_array_equal(encoder(images), whole(images))
        found = gradients_of(lambda: encoder(images), learnable)  # noqa: B023
        expected = gradients_of(
            lambda: whole(images),  # noqa: B023
            [v.value for v in variables_of(whole)],
        )
        assert all(
            error(one, other) <= 1e-5
            for one, other in zip(found, expected, strict=True)
        )


# === What XLA does not compile ===


@pytest.mark.parametrize(
    "name, train, reason",
    [
        ("table", "head", "texts"),
        ("while", "all", "loop"),
    ],
)
def test_what_cannot_be_compiled_is_said(opened, name, train, reason):
    encoder, inputs = opened(name), FORMS[name].examples()
    tlkit.freeze(encoder, train=train)
    model = Classifier(encoder, inputs)
    step = make_step(model, model.trainable_variables, inputs, jit_compile=True)
    with pytest.raises(tf.errors.OpError) as caught:
        step(inputs, LABELS)
    assert reason in why_not_compiled(caught.value)
    with pytest.raises(ValueError) as caught:
        read_hlo(step, inputs, LABELS)
    assert reason in why_not_compiled(caught.value)


def test_the_op_that_cannot_be_compiled_is_named():
    def area(x):
        return tf.raw_ops.ResizeArea(images=x, size=[4, 4])

    def filled(x):
        size = tf.random.stateless_uniform([], [1, 2], 1, 3, tf.int32)
        return tf.fill([size], x[0, 0, 0, 0])

    for function, op in ((area, "ResizeArea"), (filled, "Fill")):
        compiled = tf.function(function, jit_compile=True)
        with pytest.raises(tf.errors.OpError) as caught:
            compiled(tf.ones([1, 2, 2, 1]))
        assert f"`{op}`" in why_not_compiled(caught.value)
    with pytest.raises(tf.errors.OpError) as caught:
        tf.debugging.assert_equal(1, 2)
    assert why_not_compiled(caught.value) is None


# === Real encoders ===


@pytest.mark.real
@pytest.mark.long
@pytest.mark.parametrize(
    "name, train, batch_norm",
    [
        ("resnet50", ["stage1", "stage3.2"], "train"),
        ("vgg16", 2, "frozen"),
        ("minilm", 2, "frozen"),
    ],
)
def test_real_encoders(name, train, batch_norm):
    source = tlkit.samples.encoder(name, verbose=0)
    random = np.random.default_rng(0)
    if name == "minilm":
        model = tlkit.text_classifier(source, 3)
        ids = random.integers(1000, 20000, (4, 32)).astype("int32")
        mask = np.ones_like(ids)
        mask[1, 20:] = 0
        types = np.zeros_like(ids)
        inputs = dict(input_word_ids=ids, input_mask=mask, input_type_ids=types)
    else:
        model = tlkit.image_classifier(source, 3, image_size=64)
        inputs = random.integers(0, 256, (4, 64, 64, 3)).astype("uint8")
    inputs = tf.nest.map_structure(tf.constant, inputs)
    kernel = model.get_layer("head").dense.kernel
    kernel.assign(random.normal(size=kernel.shape) / 10)
    tlkit.freeze(model, train=train, batch_norm=batch_norm)
    _, (loss, expected), start, _ = one_step(model, inputs, jit_compile=False)
    put_back(model, start)
    step, (found, gradients), _, _ = one_step(model, inputs, jit_compile=True)
    if name == "minilm":  # dropout
        assert found == pytest.approx(loss, rel=0.3)
    else:
        # Sixteen places in the last stage: batch statistics magnify rounding.
        tolerance = 1e-5 if batch_norm == "frozen" else 0.05
        flat = [np.concatenate([g.ravel() for g in x]) for x in (gradients, expected)]
        assert found == pytest.approx(loss, rel=1e-4)
        assert error(*flat) <= tolerance
    assert read_hlo(step, inputs, LABELS) == Hlo(0, ())
    for _ in range(3):
        inputs = tf.nest.map_structure(lambda x: tf.roll(x, 1, 0), inputs)
        assert np.isfinite(step(inputs, tf.roll(LABELS, 1, 0))[0])
    assert step.experimental_get_tracing_count() == 1
