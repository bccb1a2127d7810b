"""The arithmetic of a step, against Keras and against sums by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.errors import DataError, PlanError, TrainingError
from tlkit.training import Phase, fit, learning_rates

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batched(numbers, size=4, weights=None):
    parts = numbers if weights is None else (*numbers, weights)
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def close(one, other, tolerance=1e-5):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda: keras.optimizers.AdamW(1e-2),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5),
        lambda: keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        ),
    ],
)
def test_fit_ends_where_keras_does(numbers, make_optimizer):
    ours, theirs = make_plain_model(), make_plain_model()
    for model in (ours, theirs):
        model.compile(make_optimizer(), loss=CROSS_ENTROPY, metrics=["accuracy"])
    data = batched(numbers)
    report = fit(ours, data, epochs=3, validation_data=numbers, verbose=0)
    history = theirs.fit(
        data, epochs=3, validation_data=data, shuffle=False, verbose=0
    ).history
    close(ours, theirs)
    assert set(report.history) == set(history)
    for name, figures in history.items():
        # Adam's step rounds otherwise than Keras's.
        np.testing.assert_allclose(report.history[name], figures, rtol=5e-5)


def test_class_weights_are_those_of_keras_and_of_weights_by_hand(numbers):
    models = [make_plain_model() for _ in range(3)]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY)
    class_weight = {0: 3.0, 2: 0.5}
    by_hand = np.array([3.0, 1.0, 0.5], "float32")[numbers[1]]
    fit(models[0], batched(numbers), class_weight=class_weight, verbose=0)
    fit(models[1], batched(numbers, weights=by_hand), verbose=0)
    everything = {0: 3.0, 1: 1.0, 2: 0.5}
    models[2].fit(batched(numbers), class_weight=everything, shuffle=False, verbose=0)
    close(models[0], models[1], 1e-7)
    close(models[0], models[2])


def test_an_uneven_last_batch_weighs_every_example_alike(numbers):
    x, y = numbers
    model, by_hand = make_plain_model(), make_plain_model()
    fit(
        model,
        batched(numbers, 8),
        loss=CROSS_ENTROPY,
        optimizer=keras.optimizers.SGD(0.1),
        epochs=1,
        verbose=0,
    )
    for rows in (slice(0, 8), slice(8, 11)):
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(
                y[rows], by_hand(x[rows]), from_logits=True
            )
            loss = tf.reduce_sum(losses) / len(y[rows]) + sum(by_hand.losses)
        variables = by_hand.trainable_variables
        gradients = tape.gradient(loss, [v.value for v in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
    close(model, by_hand)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
def test_other_reductions_are_those_of_keras(numbers, reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(True, reduction=reduction)
    weights = np.linspace(0.5, 2.0, 11, dtype="float32")
    models = [make_plain_model(), make_plain_model()]
    for model in models:
        model.compile(keras.optimizers.SGD(0.05), loss=loss)
    fit(models[0], batched(numbers, weights=weights), verbose=0)
    models[1].fit(batched(numbers, weights=weights), shuffle=False, verbose=0)
    close(*models)


def test_a_step_uses_the_rate_of_the_phase(numbers, plain_model):
    rates = []

    class Watcher(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    phases = [
        Phase("all", epochs=2, learning_rate=0.1, warmup=0.5),
        Phase("all", steps=2, learning_rate=0.01, decay="linear"),
    ]
    fit(
        plain_model,
        batched(numbers),
        loss=CROSS_ENTROPY,
        schedule=phases,
        callbacks=[Watcher()],
        verbose=0,
    )
    expected = [*learning_rates(phases[0], 6), *learning_rates(phases[1], 2)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_vectors_do_not_decay(numbers):
    model, x = make_plain_model(), numbers[0]
    before = model.get_weights()
    # With no gradient, nothing but the decay moves a weight.
    fit(
        model,
        x,
        numbers[1],
        loss=lambda labels, outputs: 0.0 * outputs[:, 0],
        schedule=Phase(learning_rate=0.1, weight_decay=0.5, steps=1, decay="constant"),
        verbose=0,
    )
    factors = [w / b for w, b in zip(model.get_weights(), before, strict=True)]
    for factor, variable in zip(factors, model.weights, strict=True):
        if variable.path.endswith("bias"):
            np.testing.assert_allclose(factor, 1.0)
    np.testing.assert_allclose(factors[2], 0.95, rtol=1e-5)


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight(numbers):
    x, y = numbers[0].copy(), numbers[1]
    x[9] = np.nan
    phases = [Phase(steps=2, name="fine"), Phase(steps=3, name="spoiled")]
    options = {"loss": CROSS_ENTROPY, "verbose": 0}
    spoiled, fine = make_plain_model(), make_plain_model()
    with pytest.raises(TrainingError) as raised:
        fit(spoiled, batched((x, y)), schedule=phases, **options)
    assert "nan at step 3 of phase 'spoiled'" in str(raised.value)
    first = fine.trainable_variables[0].path.split("/", 1)[1]
    assert first.split("/")[-1] in str(raised.value)  # whose gradient it was
    # All steps but the bad one: another two of the second phase, at its rates.
    rates = learning_rates(phases[1], 3)
    schedule = [
        phases[0],
        *(Phase(steps=1, learning_rate=float(r), decay="constant") for r in rates[:2]),
    ]
    part = tf.data.Dataset.from_tensor_slices((x[:8], y[:8])).batch(4)
    one = lambda k: part.skip(k).take(1)
    model = make_plain_model()
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.weights if len(v.shape) < 2]
    )
    fit(model, part, schedule=schedule[0], optimizer=optimizer, **options)
    for k, phase in enumerate(schedule[1:]):
        fit(model, one(k), schedule=phase, optimizer=optimizer, **options)
    close(spoiled, model)


def test_steps_end_inside_an_epoch_and_data_without_end_needs_them(
    numbers, plain_model
):
    endless = batched(numbers).repeat()
    report = fit(
        plain_model, endless, loss=CROSS_ENTROPY, schedule=Phase(steps=5), verbose=0
    )
    assert len(report.history["loss"]) == 1
    with pytest.raises(PlanError, match="steps=1000"):
        fit(plain_model, endless, loss=CROSS_ENTROPY, epochs=1, verbose=0)
    report = fit(
        plain_model,
        batched(numbers),
        loss=CROSS_ENTROPY,
        schedule=Phase(steps=5),
        verbose=0,
    )
    assert len(report.history["loss"]) == 2


def test_batches_that_cannot_be_counted_are_counted(numbers, plain_model):
    unknown = batched(numbers).filter(lambda x, y: True)
    report = fit(
        plain_model, unknown, loss=CROSS_ENTROPY, schedule=Phase(epochs=2), verbose=0
    )
    assert "2 epochs, 6 steps" in report.plan
    report = fit(
        plain_model, unknown, loss=CROSS_ENTROPY, schedule=Phase(steps=4), verbose=0
    )
    assert report.phases[0].epochs == 2


def test_other_shapes_of_labels_and_losses(numbers):
    x, y = numbers
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    report = fit(model, x, y.astype("float32"), loss="mse", metrics=["mae"], verbose=0)
    assert set(report.history) == {"loss", "mae"}
    report = fit(
        make_plain_model(),
        x,
        np.eye(3)[y],
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        class_weight={1: 2.0},
        verbose=0,
    )
    assert 0 <= report.history["accuracy"][0] <= 1


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda m, x, y: fit(m, x, y),
            TrainingError,
            "No loss is given. Give fit loss",
        ),
        (lambda m, x, y: fit(m, x, loss="mse"), DataError, "y is missing"),
        (lambda m, x, y: fit(m, x, y[:5], loss="mse"), DataError, "x 11; y 5"),
        (
            lambda m, x, y: fit(m, x, y, loss={"a": "mse"}),
            TrainingError,
            "Keras cannot",
        ),
        (
            lambda m, x, y: fit(m, x, y, loss="mse", epochs=1, schedule=Phase()),
            PlanError,
            "Leave epochs out",
        ),
        (
            lambda m, x, y: fit(m, x, y, loss="mse", class_weight={"a": 1.0}),
            DataError,
            "Type their indices",
        ),
        (
            lambda m, x, y: fit(m, x, y, loss="mse", batch_size=0),
            DataError,
            "batch_size",
        ),
        (
            lambda m, x, y: fit(m, x, y, loss="mse", validation_data=x),
            DataError,
            "validation_data must be",
        ),
    ],
)
def test_a_mistake_is_named(numbers, plain_model, call, error, words):
    with pytest.raises(error, match=words):
        call(plain_model, *numbers)
