"""Data that gives fewer batches than were counted: updates are in the books."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import make_plain_model
from tlkit.errors import DataError
from tlkit.training import Phase, fit


def shrinking(numbers, counts):
    """A dataset of unknown length that gives other numbers of batches in each pass."""
    x, y = numbers
    counts = iter(counts)

    def batches():
        for k in range(next(counts, 0)):
            yield x[2 * k : 2 * k + 2], y[2 * k : 2 * k + 2]

    signature = (tf.TensorSpec([2, 4]), tf.TensorSpec([2], tf.int64))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def train(data, **options):
    model = make_plain_model()
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model, fit(model, data, verbose=0, **options)


def test_an_epoch_that_ends_early_is_counted_and_warned_about(numbers):
    # Counted: 5. The third batch of the first call is missing in the second epoch.
    data = shrinking(numbers, [5, 5, 2])
    phase = Phase("all", epochs=2, learning_rate=0.1, decay="constant")
    with pytest.warns(UserWarning, match="Epoch 2 ran out .* got 2 .* of the 5 .*coun"):
        model, report = train(data, schedule=phase, steps_per_execution=5)
    assert int(model.optimizer.iterations) == 7
    expected = make_plain_model()
    expected.compile(keras.optimizers.SGD(0.1), model.loss)
    for batches in (5, 2):
        x, y = (array[: 2 * batches] for array in numbers)
        logs = expected.fit(x, y, batch_size=2, shuffle=False, verbose=0).history
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert report.history["loss"][-1] == pytest.approx(logs["loss"][0], rel=1e-5)


def test_batches_of_an_incomplete_update_do_not_reach_the_next_epoch(numbers):
    # An epoch of three batches has one update of two, and one batch is left over.
    options = {
        "schedule": Phase("all", epochs=2, learning_rate=0.1, decay="constant"),
        "gradient_accumulation_steps": 2,
    }
    with pytest.warns(UserWarning, match="ran out"):
        model, _ = train(shrinking(numbers, [4, 3, 4]), **options)
    with pytest.warns(UserWarning, match="ran out"):
        expected, _ = train(shrinking(numbers, [4, 2, 4]), **options)
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_data_without_a_batch_in_the_second_pass_is_an_error(numbers):
    phase = Phase("all", epochs=2, learning_rate=0.1)
    with pytest.raises(DataError, match="Epoch 1 ran out .* got 0 batches of the 5"):
        train(shrinking(numbers, [5]), schedule=phase)


def test_a_validation_that_ends_early_is_warned_about(numbers):
    phase = Phase("all", epochs=1, learning_rate=0.1)
    with pytest.warns(UserWarning, match="The validation ran out .* got 3 .* of the 5"):
        _, report = train(
            shrinking(numbers, [5, 5]),
            schedule=phase,
            validation_data=shrinking(numbers, [5, 3, 3]),
        )
    assert np.isfinite(report.history["val_loss"]).all()
