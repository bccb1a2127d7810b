"""A variable that enters late is updated as a fresh optimizer would update it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.training import Phase, fit
from tlkit.training.checkpoints import snapshot as snapshots
from tlkit.training.checkpoints.callback_states import CallbackStates
from tlkit.training.loop.averages import MovingAverages
from tlkit.training.loop.update import is_applied_by_keras, make_update
from tlkit.training.loop.update_counts import update_counts

OPTIMIZERS = {
    name: getattr(keras.optimizers, name)
    for name in "SGD RMSprop Adam AdamW Adadelta Adagrad Adamax Adafactor Nadam Ftrl "
    "Lion Lamb Muon ScheduleFreeAdamW".split()
    if hasattr(keras.optimizers, name)
} | {
    "amsgrad": lambda rate: keras.optimizers.Adam(rate, amsgrad=True),
    "use_ema": lambda rate: keras.optimizers.AdamW(rate, use_ema=True),
    "loss scale": lambda rate: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(rate), initial_scale=1.0
    ),
    "loss scale of Nadam": lambda rate: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Nadam(rate), initial_scale=1.0
    ),
}


def make_variables():
    random = np.random.default_rng(0)
    return [keras.Variable(random.normal(size=(3, 4)).astype("float32")) for _ in "ab"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_late_variable_is_updated_as_by_a_fresh_optimizer(name):
    early, late = make_variables()
    _, expected = make_variables()
    optimizer, fresh = OPTIMIZERS[name](0.01), OPTIMIZERS[name](0.01)
    optimizer.build([early, late])
    fresh.build([expected])
    averages = MovingAverages([], momentum=0.0, strategy=tf.distribute.get_strategy())
    gradient = tf.constant(np.random.default_rng(1).normal(size=(3, 4)), tf.float32)

    def update(*variables, times):
        function = make_update(
            optimizer, variables, factors=[1.0] * len(variables), averages=averages
        )
        for _ in range(times):
            function([gradient] * len(variables), tf.constant(0.01))
            if not is_applied_by_keras(optimizer):
                optimizer.iterations.assign_add(1)

    update(early, times=50)
    update(early, late, times=5)
    for _ in range(5):
        fresh.apply([gradient], [expected])
    np.testing.assert_allclose(late.numpy(), expected.numpy(), atol=5e-6)
    moved = np.abs(expected.numpy() - make_variables()[1].numpy()).max()
    assert moved > 5e-5  # far above the tolerance


@pytest.mark.parametrize("scaled", [False, True])
def test_the_first_step_of_a_block_has_the_size_of_the_learning_rate(
    make_model, splits, scaled
):
    model, optimizer = make_model(), keras.optimizers.Adam(epsilon=1e-12)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    (block,) = model.get_layer("encoder").blocks[-1:]
    before = [variable.numpy() for variable in block.learnable]
    schedule = [
        Phase("head", epochs=3),
        Phase(1, steps=1, learning_rate=1e-3, decay="constant"),
    ]
    fit(model, splits, schedule=schedule, optimizer=optimizer, batch_size=6, verbose=0)
    for variable, start in zip(block.learnable, before, strict=True):
        step = np.abs(variable.numpy() - start)
        np.testing.assert_allclose(step[step > 0], 1e-3, rtol=1e-3)
    head = model.get_layer("head").dense.kernel
    assert int(update_counts(optimizer).of(id(head))) == 10
    assert int(update_counts(optimizer).of(id(block.learnable[0]))) == 1


def test_counts_continue_in_the_next_fit(numbers):
    optimizer, model = keras.optimizers.Adam(), make_plain_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for epochs in (2, 3):
        phase = Phase(epochs=epochs)
        options = {"optimizer": optimizer, "loss": loss, "batch_size": 11}
        fit(model, *numbers, schedule=phase, verbose=0, **options)
    assert [int(count) for count in update_counts(optimizer).values] == [5] * 4


def take(model, optimizer):
    return snapshots.take_snapshot(model, optimizer, (), CallbackStates(()))


def test_checkpoints_hold_the_counts_and_older_ones_are_read():
    model, optimizer = make_plain_model(), keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    early = model.trainable_variables[:2]
    optimizer.apply([tf.ones(v.shape) for v in early], early)  # by Keras, so estimated
    counts = update_counts(optimizer)
    assert [int(count) for count in counts.values] == [1, 1, 0, 0]
    counts.values[3].assign(7)
    arrays, state = take(model, optimizer)
    names = [name for name in arrays if name.endswith("/updates")]
    assert [int(arrays[name]) for name in names] == [1, 1, 0, 7]

    def read(arrays):
        for count in counts.values:
            count.assign(99)
        options = {
            "optimizer": optimizer,
            "metrics": (),
            "callbacks": CallbackStates(()),
        }
        snapshots.restore_snapshot(arrays, state, model=model, **options)
        return [int(count) for count in counts.values]

    assert read(arrays) == [1, 1, 0, 7]
    before = {name: array for name, array in arrays.items() if name not in names}
    assert read(before) == [1, 1, 0, 0]
