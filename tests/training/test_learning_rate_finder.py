"""The learning-rate test finds a rate that works, and leaves no trace."""

import keras
import numpy as np
import pytest

from tests.training.conftest import make_plain_model
from tlkit.errors import PlanError, TrainingError
from tlkit.training import Phase, find_learning_rate, fit

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_the_model_is_left_as_it_was(make_model, splits):
    model = make_model()
    model.get_layer("head").dense.trainable = False
    before = [v.numpy() for v in model.variables]
    flags = [v.trainable for v in model.weights]
    found = find_learning_rate(
        model, splits, train=1, batch_norm="train", steps=12, batch_size=6, verbose=0
    )
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert [v.trainable for v in model.weights] == flags
    assert found.learning_rates[0] == pytest.approx(1e-6)
    assert len(found.losses) == len(found.learning_rates) <= 12
    assert f"suggestion {found.suggestion:.2e}" in str(found)


def test_the_optimizer_is_left_as_it_was(numbers):
    model = make_plain_model()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=CROSS_ENTROPY)
    find_learning_rate(model, *numbers, steps=20, batch_size=4, verbose=0)
    assert not model.optimizer.built
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


def test_the_suggestion_trains_and_the_limit_is_where_it_turns():
    # (w - 1)² / 2 by plain steps: rates above 2 explode, the best is about 1.
    x, y = np.ones((6400, 1), "float32"), np.ones((6400, 1), "float32")
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    half = lambda labels, outputs: (labels - outputs)[:, 0] ** 2 / 2
    found = find_learning_rate(
        model,
        x,
        y,
        loss=half,
        optimizer=keras.optimizers.SGD(),
        highest=100.0,
        steps=60,
        verbose=0,
    )
    assert 1e-3 < found.suggestion < 2
    assert found.suggestion <= found.limit
    assert found.learning_rates[-1] < 100  # it stopped when the loss exploded
    phase = Phase(learning_rate=found.suggestion, epochs=2, decay="constant")
    fit(model, x, y, loss=half, optimizer="sgd", schedule=phase, verbose=0)
    np.testing.assert_allclose(layer.kernel.numpy(), [[1.0]], atol=1e-2)


def test_bad_numbers_are_refused(plain_model, numbers):
    for wrong in ({"lowest": 0.0}, {"highest": 1e-9}, {"steps": 3}):
        with pytest.raises(PlanError):
            find_learning_rate(plain_model, *numbers, loss=CROSS_ENTROPY, **wrong)
    x = np.full_like(numbers[0], np.nan)
    with pytest.raises(TrainingError, match="not finite"):
        find_learning_rate(plain_model, x, numbers[1], loss=CROSS_ENTROPY, verbose=0)
