"""Each method of a Keras optimizer is called by the loop or by Keras, or refused."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.training import Phase, fit
from tlkit.training.arguments import accumulation_steps
from tlkit.training.loop.averages import MovingAverages
from tlkit.training.loop.optimizer_contract import (
    METHODS,
    UNUSED,
    check_methods,
    overridden,
)
from tlkit.training.loop.update import check_replicas, is_applied_by_keras, make_update
from tlkit.training.strategies.scope_copies import recreate_in_scope


def methods_of(kind):
    """Returns the methods and properties that Keras's classes define."""
    return {
        name
        for base in kind.__mro__
        if base.__module__.startswith("keras.")
        for name, value in vars(base).items()
        if inspect.isroutine(value) or isinstance(value, (property, classmethod))
        if not name.startswith("__")
    }


def test_every_method_of_an_optimizer_has_a_treatment():
    names = methods_of(keras.optimizers.Optimizer)
    assert names - METHODS.keys() == set()
    assert METHODS.keys() - names == set()  # else a name of ours has changed in Keras


def test_a_copy_excludes_the_same_variables_from_weight_decay():
    inner = keras.optimizers.AdamW(gradient_accumulation_steps=2)
    inner.exclude_from_weight_decay(var_names=["bias"])
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    assert accumulation_steps(optimizer, None) == 2
    copy = recreate_in_scope(optimizer, tf.distribute.get_strategy())
    bias = keras.Variable([0.0], name="bias")
    assert copy.inner_optimizer is not inner
    assert not copy.inner_optimizer._use_weight_decay(bias)


class Centered(keras.optimizers.SGD):
    """Subtracts the mean of each gradient."""

    def apply_gradients(self, grads_and_vars):
        pairs = [(g - tf.reduce_mean(g), v) for g, v in grads_and_vars]
        return super().apply_gradients(pairs)


class Signs(keras.optimizers.Adam):
    def _clip_gradients(self, grads):
        return [tf.sign(g) for g in grads]


class Halves(keras.optimizers.Adam):
    def assign_sub(self, variable, value):
        super().assign_sub(variable, value / 2)


class Rounds(keras.optimizers.SGD):
    def finalize_variable_values(self, var_list):
        for variable in var_list:
            variable.assign(tf.round(variable * 10) / 10)


class Every(keras.optimizers.SGD):
    @property
    def iterations(self):
        return self._iterations * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Centered(0.1),
        lambda: Signs(0.1),
        lambda: Halves(0.1),
        lambda: Rounds(0.1),
        lambda: keras.optimizers.SGD(0.1, clipnorm=0.0),
        lambda: keras.optimizers.LossScaleOptimizer(Signs(0.1)),
    ],
)
def test_an_overridden_method_acts_as_in_keras(make):
    (one, other), gradient = make_variables(), tf.constant([[0.3, -0.1, 0.7]])
    ours, theirs = make(), make()
    ours.build([one])
    theirs.build([other])
    averages = MovingAverages([], momentum=0.0, strategy=tf.distribute.get_strategy())
    update = make_update(ours, [one], factors=[1.0], averages=averages)
    for _ in range(2):
        scaled = ours.scale_loss(gradient)
        assert bool(update([scaled], tf.constant(0.1)))
        theirs.apply_gradients([(scaled, other)])
        if not is_applied_by_keras(ours):
            ours.iterations.assign_add(1)
    ours.finalize_variable_values([one])
    theirs.finalize_variable_values([other])
    np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6)
    assert int(ours.iterations) == int(theirs.iterations) == 2


def make_variables():
    return [keras.Variable(np.ones((1, 3), "float32"), name="kernel") for _ in "ab"]


def test_what_cannot_be_called_is_named():
    with pytest.raises(TrainingError, match="Every overrides iterations, which the"):
        check_methods(Every(0.1))
    with pytest.raises(TrainingError, match="Centered, which overrides apply_gradie"):
        check_replicas(Centered(0.1), 2)
    check_methods(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
    assert overridden(keras.optimizers.SGD(0.1), UNUSED) == ["get_config"]
    kernel = keras.Variable(np.ones(3, "float32"))
    kernel.overwrite_with_gradient = True
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([kernel])
    averages = MovingAverages([], momentum=0.0, strategy=tf.distribute.get_strategy())
    with pytest.raises(TrainingError, match="overwritten by its gradient"):
        make_update(optimizer, [kernel], factors=[1.0], averages=averages)


def test_an_update_with_an_infinite_gradient_is_skipped_and_halves_the_scale():
    (one, _), inner = make_variables(), keras.optimizers.SGD(1.0, weight_decay=0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(
        inner, initial_scale=8.0, dynamic_growth_steps=2
    )
    optimizer.build([one])
    averages = MovingAverages([], momentum=0.0, strategy=tf.distribute.get_strategy())
    update = make_update(optimizer, [one], factors=[0.5], averages=averages)
    gradient = lambda value: [tf.fill([1, 3], value)]
    assert not bool(update(gradient(np.inf), tf.constant(0.1)))
    np.testing.assert_array_equal(one.numpy(), np.ones((1, 3)))
    assert float(optimizer.dynamic_scale) == 4.0
    scales = []
    for _ in range(3):
        assert bool(update(gradient(4.0), tf.constant(0.1)))
        scales.append(float(optimizer.dynamic_scale))
    assert scales == [4.0, 8.0, 8.0]
    kernel = 1.0  # with half of the rate, and the gradients 1, 1 and 0.5
    for unscaled in (1.0, 1.0, 0.5):
        kernel = kernel * (1 - 0.05 * 0.5) - 0.05 * unscaled
    np.testing.assert_allclose(one.numpy(), np.full((1, 3), kernel), rtol=1e-6)


def test_the_weight_decay_of_a_phase_acts_in_mixed_precision():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, dtype="mixed_float16")]
    )
    layer = model.layers[-1]
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer), loss="mse")
    start = layer.kernel.numpy()
    schedule = Phase(epochs=1, learning_rate=0.1, decay="constant", weight_decay=0.5)
    data = {"x": np.zeros((4, 2)), "y": np.zeros(4), "batch_size": 1, "verbose": 0}
    fit(model, **data, schedule=schedule)
    np.testing.assert_allclose(layer.kernel.numpy(), start * 0.95**4, rtol=1e-6)
    assert optimizer.weight_decay is None
    # All updates would be skipped, without a word.
    data["x"] = np.full((4, 2), np.nan)
    with pytest.raises(TrainingError, match="in so many updates of phase 'all'"):
        fit(model, **data, schedule=Phase(epochs=9))
    np.testing.assert_allclose(layer.kernel.numpy(), start * 0.95**4, rtol=1e-6)
