"""Our update against Keras's own `optimizer.apply`, optimizer by optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.training import Phase, fit
from tlkit.training.loop.averages import MovingAverages
from tlkit.training.loop.update import (
    check_replicas,
    is_applied_by_keras,
    make_update,
)

PLAIN = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.1, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.2),
    "Lion": lambda: keras.optimizers.Lion(0.1, weight_decay=0.1),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.1, centered=True),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.1),
    "Lamb": lambda: keras.optimizers.Lamb(0.1),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.5),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, clipvalue=0.3),
    "global_clipnorm": lambda: keras.optimizers.AdamW(0.1, global_clipnorm=0.5),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    ),
    "LossScale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, clipnorm=0.5), initial_scale=1.0
    ),
}
BY_KERAS = {
    "Nadam": lambda: keras.optimizers.Nadam(0.1),
    "use_ema": lambda: keras.optimizers.SGD(0.1, use_ema=True),
}

CLOSE = {"rtol": 1e-6, "atol": 1e-7}
# Their step is one op (tlkit/training/loop/update.py).
APART = dict.fromkeys(("AdamW", "global_clipnorm"), {"rtol": 0, "atol": 5e-6})


def make_variables():
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 4), "bias": (4,), "idle": (2,)}
    return [
        keras.Variable(random.normal(size=shape).astype("float32"), name=name)
        for name, shape in shapes.items()
    ]


GRADIENTS = [
    [np.random.default_rng(seed).normal(size=s).astype("float32") for s in ((3, 4), 4)]
    for seed in range(3)
]


def no_averages(variables):
    return MovingAverages(
        variables, momentum=0.0, strategy=tf.distribute.get_strategy()
    )


@pytest.mark.parametrize("name", PLAIN)
def test_weights_move_as_keras_moves_them(name):
    ours, theirs = make_variables(), make_variables()
    one, other = PLAIN[name](), PLAIN[name]()
    one.build(ours)
    other.build(theirs)
    for optimizer, variables in ((one, ours), (other, theirs)):
        optimizer.exclude_from_weight_decay(var_list=[variables[1]])
    assert not is_applied_by_keras(one)
    update = make_update(one, ours, factors=(1.0,) * 3, averages=no_averages(ours))
    for gradients in GRADIENTS:
        update([*map(tf.constant, gradients), None], tf.constant(0.1))
        one.iterations.assign_add(1)
        other.apply([tf.constant(g) for g in gradients], theirs[:2])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), **APART.get(name, CLOSE))
    np.testing.assert_array_equal(ours[2].numpy(), make_variables()[2].numpy())


@pytest.mark.parametrize("name", BY_KERAS)
def test_what_keras_must_apply_is_known_and_refused_on_replicas(name):
    optimizer = BY_KERAS[name]()
    assert is_applied_by_keras(optimizer)
    check_replicas(optimizer, 1)
    with pytest.raises(TrainingError, match="cannot be used on 2 replicas"):
        check_replicas(optimizer, 2)
    variables = make_variables()
    optimizer.build(variables)
    update = make_update(
        optimizer, variables, factors=(1.0,) * 3, averages=no_averages(variables)
    )
    update([*map(tf.constant, GRADIENTS[0]), None], tf.constant(0.1))
    assert int(optimizer.iterations.numpy()) == 1
    assert not np.array_equal(variables[0].numpy(), make_variables()[0].numpy())
    with pytest.raises(TrainingError, match="layer_decay must be 1"):
        make_update(
            optimizer, variables, factors=(0.5,) * 3, averages=no_averages(variables)
        )


def test_a_factor_scales_the_rate_and_the_decay_of_its_variable():
    variables = make_variables()
    before = [v.numpy() for v in variables]
    optimizer = keras.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer.build(variables)
    update = make_update(
        optimizer, variables, factors=(1.0, 0.25, 1.0), averages=no_averages(variables)
    )
    update([*map(tf.constant, GRADIENTS[0]), None], tf.constant(0.1))
    for i, factor in enumerate((1.0, 0.25)):
        rate = 0.1 * factor
        expected = before[i] * (1 - 0.5 * rate) - rate * GRADIENTS[0][i]
        np.testing.assert_allclose(variables[i].numpy(), expected, rtol=1e-5)


def test_averages_follow_and_change_places_with_the_weights():
    (variable,) = make_variables()[:1]
    start = variable.numpy()
    averages = MovingAverages(
        [variable], momentum=0.5, strategy=tf.distribute.get_strategy()
    )
    expected = start.copy()
    for step in range(4):
        variable.assign(start + step + 1)
        averages.update(variable, tf.constant(step))
        share = 1 - min(0.5, (step + 1) / (step + 10))
        expected += share * (start + step + 1 - expected)
    with averages.swapped():
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(variable.numpy(), start + 3 + 1)


def fitted_kernel(optimizer, by_keras=False, **options):
    random = np.random.default_rng(1)
    x, y = random.normal(size=(16, 4)).astype("float32"), np.arange(16) % 3
    layer = keras.layers.Dense(3, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if by_keras:
        model.compile(optimizer, loss)
        model.fit(x, y, batch_size=16, epochs=4, verbose=0)
    else:
        phase = Phase(epochs=4, learning_rate=0.1, decay="constant")
        options |= {"optimizer": optimizer, "schedule": phase, "loss": loss}
        fit(model, x, y, batch_size=16, verbose=0, **options)
    return layer.kernel.numpy()


def test_averages_follow_when_keras_applies_too():
    last = fitted_kernel(BY_KERAS["Nadam"]())
    averaged = fitted_kernel(BY_KERAS["Nadam"](), ema=0.5)
    assert np.abs(averaged).max() > 0.01  # not the zeros that it began with
    assert not np.allclose(last, averaged)


def test_the_averages_of_an_optimizer_come_out_as_in_keras():
    make = lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), initial_scale=1.0
    )
    expected = fitted_kernel(make(), by_keras=True)
    np.testing.assert_allclose(fitted_kernel(make()), expected, rtol=1e-5)
    plain = fitted_kernel(keras.optimizers.SGD(0.1))
    assert not np.allclose(plain, expected)


def test_an_optimizer_is_as_it_was_after_fit():
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse")
    fit(model, np.ones((8, 4)), np.ones(8), schedule=Phase(weight_decay=0.1), verbose=0)
    assert optimizer.gradient_accumulation_steps == 2
    assert float(optimizer.learning_rate) == pytest.approx(0.5)
    assert optimizer.weight_decay is None


def test_a_fixed_loss_scale_is_divided_out_again():
    ours, theirs = make_variables(), make_variables()
    one, other = (keras.optimizers.SGD(0.1, loss_scale_factor=8.0) for _ in range(2))
    one.build(ours)
    other.build(theirs)
    update = make_update(one, ours, factors=(1.0,) * 3, averages=no_averages(ours))
    update([*map(tf.constant, GRADIENTS[0]), None], tf.constant(0.1))
    other.apply([tf.constant(g) for g in GRADIENTS[0]], theirs[:2])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
