"""Losses, metrics and settings of `compile`, against Keras's own `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.errors import TrainingError
from tlkit.training import fit

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(11, 4)).astype("float32")
Y = RANDOM.integers(0, 3, 11)
WEIGHTS = RANDOM.uniform(0.5, 2, 11).astype("float32")
TOKENS = RANDOM.integers(1, 7, (11, 6))
TOKENS[:, 3:] = 0
TAGS = RANDOM.integers(0, 3, (11, 6))


class UnregisteredMetric(keras.metrics.Mean):
    def __init__(self, factor):
        super().__init__(name="factored")
        self.factor = factor

    def update_state(self, labels, outputs, sample_weight=None):
        super().update_state(self.factor * outputs, sample_weight)


def make_two_outputs():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, "tanh")(inputs)
    a, b = (keras.layers.Dense(n, name=k)(hidden) for k, n in (("a", 3), ("b", 1)))
    return keras.Model(inputs, {"a": a, "b": b})


def make_tagger():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype="int32")
    hidden = keras.layers.Embedding(7, 5, mask_zero=True)(inputs)
    hidden = keras.layers.LSTM(4, return_sequences=True)(hidden)
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def make_without_regularizer():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


class OwnLoss(keras.Model):
    """A model that computes its loss, and has a metric of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)
        self.tracker = keras.metrics.Mean(name="tracker")

    def call(self, inputs):
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = keras.ops.mean((y_pred - keras.ops.mean(x)) ** 2)
        self.tracker.update_state(loss)
        return 2 * loss


def make_own_loss():
    keras.utils.set_random_seed(1)
    model = OwnLoss()
    model(X)
    return model


def make_with_activity_regularizer():
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(3, activity_regularizer="l2")
    return keras.Sequential([keras.Input((4,)), dense])


def pair_loss(labels, outputs):
    """Has one value for each pair of neighbors: not one for each example."""
    return keras.ops.mean((outputs[1:] - outputs[:-1]) ** 2, axis=-1)


def sgd():
    return keras.optimizers.SGD(0.1)


@pytest.mark.parametrize(
    "make, data, settings",
    [
        (
            make_plain_model,
            (X, Y, WEIGHTS),
            lambda: {
                "loss": CROSS_ENTROPY(from_logits=True),
                "loss_weights": 0.1,
                "metrics": [
                    ["accuracy", lambda a, b: keras.ops.mean(b), UnregisteredMetric(3)]
                ],
                "weighted_metrics": ["accuracy"],
            },
        ),
        (
            make_without_regularizer,  # with one, Keras itself fails
            (X, Y, WEIGHTS),
            lambda: {"loss": CROSS_ENTROPY(from_logits=True, reduction=None)},
        ),
        (
            make_without_regularizer,
            (X, np.eye(3, dtype="float32")[Y]),
            lambda: {"loss": "crossentropy", "metrics": ["acc", "acc"]},
        ),
        (
            make_two_outputs,
            (X, {"a": Y, "b": X[:, :1]}),
            lambda: {
                "loss": {"a": CROSS_ENTROPY(from_logits=True), "b": "mse"},
                "loss_weights": {"a": 1.0, "b": 0.3},
                "metrics": {"a": ["accuracy"], "b": ["mae"]},
            },
        ),
        (
            make_tagger,
            (TOKENS, TAGS),
            lambda: {
                "loss": CROSS_ENTROPY(from_logits=True, ignore_class=2),
                "weighted_metrics": ["accuracy"],
            },
        ),
        (
            make_tagger,
            (TOKENS, TAGS, np.tile(WEIGHTS[:, np.newaxis], (1, 6))),
            lambda: {
                "loss": CROSS_ENTROPY(
                    from_logits=True, reduction="mean_with_sample_weight"
                )
            },
        ),
        (make_own_loss, (X, Y), dict),
        (make_plain_model, (X, Y), lambda: {"loss": pair_loss}),
        (make_with_activity_regularizer, (X, Y), dict),
    ],
    ids="metrics none names outputs ignored steps compute_loss pairs layers".split(),
)
def test_weights_and_history_are_those_of_keras(make, data, settings):
    ours, theirs = make(), make()
    for model in (ours, theirs):
        model.compile(sgd(), **settings())
    batches = tf.data.Dataset.from_tensor_slices(data).batch(4)
    options = {"epochs": 2, "validation_data": batches, "verbose": 0}
    report = fit(ours, batches, **options)
    history = theirs.fit(batches, shuffle=False, **options).history
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-7)
    assert set(report.history) == set(history)
    for name, values in history.items():
        np.testing.assert_allclose(report.history[name], values, rtol=1e-5)


@pytest.fixture
def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")


def test_small_gradients_survive_mixed_float16(mixed_float16):
    ours, theirs = make_without_regularizer(), make_without_regularizer()
    tiny = lambda labels, outputs: 1e-7 * keras.ops.mean(outputs, axis=-1)
    before = ours.get_weights()[0]
    theirs.compile(keras.optimizers.SGD(1e5), tiny)
    theirs.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    fit(
        ours,
        X,
        Y,
        batch_size=4,
        shuffle=False,
        optimizer=keras.optimizers.SGD(1e5),  # which compile, too, gives a loss scale
        loss=tiny,
        verbose=0,
    )
    kernel = ours.get_weights()[0]
    np.testing.assert_allclose(kernel, theirs.get_weights()[0], rtol=1e-5)
    assert np.abs(kernel - before).max() > 1e-4


def test_what_the_model_was_compiled_with_comes_back():
    model, uncompiled = make_plain_model(), make_plain_model()
    metric = keras.metrics.SparseCategoricalAccuracy()
    model.compile("sgd", CROSS_ENTROPY(from_logits=True), metrics=[metric])
    before = (model.optimizer, model.loss, model.get_compile_config())
    other = {"loss": "mse", "optimizer": "adam", "metrics": ["mae"]}
    report = fit(model, X, X[:, :3], **other, verbose=0)
    assert set(report.history) == {"loss", "mae"}
    assert (model.optimizer, model.loss, model.get_compile_config()) == before
    fit(uncompiled, X, Y, loss=CROSS_ENTROPY(from_logits=True), verbose=0)
    assert not uncompiled.compiled and not hasattr(uncompiled, "optimizer")


def test_early_stopping_finds_the_direction_of_a_metric(splits, make_model):
    stopping = keras.callbacks.EarlyStopping("val_accuracy", patience=0)
    report = fit(make_model(), splits, epochs=3, callbacks=stopping, verbose=0)
    assert "val_accuracy" in report.history


def test_run_eagerly_runs_python_for_each_batch():
    calls = []

    def loss(labels, outputs):
        calls.append(outputs.numpy().shape)
        return keras.ops.mean(outputs**2, axis=-1)

    model = make_plain_model()
    model.compile(sgd(), loss, run_eagerly=True)
    fit(model, X, Y, batch_size=4, verbose=0)
    assert calls[-3:] == [(4, 3), (4, 3), (3, 3)]


def test_losses_that_do_not_fit_the_outputs_are_named():
    with pytest.raises(TrainingError, match="named .'a', 'b'."):
        fit(make_two_outputs(), X, Y, loss={"c": "mse"}, verbose=0)


def test_a_metric_without_weights_is_rejected_as_by_keras():
    class NoWeights(keras.metrics.Mean):
        def update_state(self, labels, outputs):
            super().update_state(outputs)

    with pytest.raises(TrainingError, match="sample_weight"):
        fit(make_plain_model(), X, Y, loss="mse", metrics=[NoWeights()], verbose=0)
