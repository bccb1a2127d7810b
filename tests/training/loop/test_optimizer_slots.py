"""An optimizer that was built for some variables is extended for others."""

import keras
import numpy as np
import pytest

from tests.training.conftest import make_plain_model
from tests.training.loop.test_update_counts import OPTIMIZERS
from tlkit.errors import TrainingError
from tlkit.training import Phase, fit
from tlkit.training.checkpoints.variable_names import without_number
from tlkit.training.loop.optimizer import innermost
from tlkit.training.loop.optimizer_slots import build_optimizer
from tlkit.training.loop.update_counts import update_counts

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_variables():
    random = np.random.default_rng(0)
    return [
        keras.Variable(random.normal(size=shape).astype("float32"), name=name)
        for name, shape in {"first": (3, 4), "second": (4,), "third": (4, 2)}.items()
    ]


def gradients(variables):
    return [np.full(v.shape, 0.1 + i, "float32") for i, v in enumerate(variables)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_are_added_and_the_others_stay(name):
    variables, optimizer = make_variables(), OPTIMIZERS[name](0.01)
    head = variables[1:]
    optimizer.apply(gradients(head), head)  # as Keras's own `fit` builds it
    before = {id(v): v.numpy() for v in optimizer.variables}
    build_optimizer(optimizer, variables)
    after = {id(v): v.numpy() for v in optimizer.variables}
    assert before.keys() <= after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    fresh = OPTIMIZERS[name](0.01)
    fresh.build(variables)
    # In Keras's order, in which files hold them.
    kinds = [(v.shape, without_number(v.name)) for v in optimizer.variables]
    assert kinds == [(v.shape, without_number(v.name)) for v in fresh.variables]
    counts = update_counts(optimizer)
    assert [int(count) for count in counts.values[1:]] == [1, 1]
    if len(after) > len(before) and not name.startswith("Sched"):
        assert int(counts.values[0]) == 0
    start = variables[0].numpy()
    optimizer.apply(gradients(variables), variables)
    assert np.abs(variables[0].numpy() - start).max() > 0
    if name == "use_ema":  # no average with the zeros with which Keras begins
        optimizer.finalize_variable_values(variables)
        np.testing.assert_allclose(variables[0].numpy(), start, atol=0.02)


def test_fits_alternate_with_those_of_keras(numbers):
    model = make_plain_model()
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    body, head = model.layers
    body.trainable = False
    model.fit(*numbers, batch_size=11, epochs=3, verbose=0)
    options = {"batch_size": 11, "verbose": 0}
    fit(model, *numbers, schedule=Phase(epochs=2), **options)
    counts = update_counts(model.optimizer)
    of = lambda layer: [int(counts.of(id(v))) for v in layer.weights]
    assert of(head) == [5, 5]
    momentum = model.optimizer._momentums[0]
    body.trainable = True
    fit(model, *numbers, schedule=Phase(epochs=1), **options)
    assert of(head) == [6, 6] and of(body) == [1, 1]
    assert model.optimizer._momentums[2] is momentum
    assert int(model.optimizer.iterations) == 6
    model.fit(*numbers, batch_size=11, epochs=2, verbose=0)
    build_optimizer(model.optimizer, model.trainable_variables)
    assert of(head) == [8, 8] and of(body) == [3, 3]


class Keeper(keras.optimizers.SGD):
    """Has a slot for each variable, but not in a list."""

    def build(self, variables):
        super().build(variables)
        self.slots = {v.name: self.add_variable_from_reference(v) for v in variables}


class Unguarded(keras.optimizers.SGD):
    """Can be built twice, as in Keras's guide to optimizers."""

    def build(self, variables):
        keras.optimizers.Optimizer.build(self, variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")


def test_loss_scaling_keeps_the_slots_of_an_optimizer_that_is_built():
    variables, inner = make_variables(), Unguarded(0.1, momentum=0.9)
    inner.build(variables[1:])
    slots = list(inner.momentums)
    build_optimizer(keras.optimizers.LossScaleOptimizer(inner), variables)
    assert [id(slot) for slot in inner.momentums[1:]] == [id(slot) for slot in slots]
    assert len(inner.variables) == 5


def test_an_optimizer_with_other_slots_cannot_be_extended():
    variables, optimizer = make_variables(), Keeper(0.1)
    optimizer.build(variables[1:])
    before = optimizer.variables
    with pytest.raises(TrainingError, match="The slots of Keeper cannot be extended"):
        build_optimizer(optimizer, variables)
    assert optimizer.variables == before
    assert len(innermost(optimizer)._trainable_variables) == 2
