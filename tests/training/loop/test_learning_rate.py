"""A learning rate that a callback assigns is absolute, and belongs to its phase."""

import keras
import numpy as np
import pytest

from tests.training.conftest import make_plain_model
from tlkit.errors import TrainingError
from tlkit.training import Checkpoints, Phase, fit
from tlkit.training.loop.learning_rate import LearningRate

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Assign(keras.callbacks.Callback):
    """Assigns rates before batches of the run, by number, and records all rates."""

    def __init__(self, rates=(), at_begin=None):
        super().__init__()
        self.rates, self.at_begin, self.seen = dict(rates), at_begin, []

    def on_train_begin(self, logs=None):
        if self.at_begin is not None:
            self.model.optimizer.learning_rate = self.at_begin

    def on_train_batch_begin(self, batch, logs=None):
        if len(self.seen) in self.rates:
            self.model.optimizer.learning_rate.assign(self.rates[len(self.seen)])

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


class Sums(keras.optimizers.SGD):
    """Adds up the rates at which it updates a bias: what it was really trained at."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign_sub(keras.ops.ones_like(variable) * learning_rate)


def rates_of(numbers, schedule, *callbacks, **options):
    """Returns the rate of each step, as callbacks see it; three steps in an epoch."""
    model, optimizer = make_plain_model(), Sums(0.7)
    start = model.layers[-1].bias.numpy()
    recorder = Assign(options.pop("rates", ()), options.pop("at_begin", None))
    fit(
        model,
        *numbers,
        schedule=schedule,
        optimizer=optimizer,
        callbacks=[*callbacks, recorder],
        loss=LOSS,
        batch_size=4,
        verbose=0,
        **options,
    )
    total = (start - model.layers[-1].bias.numpy())[0]
    np.testing.assert_allclose(sum(recorder.seen), total, rtol=1e-5)
    assert float(optimizer.learning_rate) == pytest.approx(0.7)
    return np.array(recorder.seen)


def test_a_scheduler_replaces_warm_up_and_decay(numbers):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)
    # In the second epoch, the assigned rate is the planned one of the moment.
    phase = Phase(epochs=4, learning_rate=1e-3, warmup=0.25)
    rates = rates_of(numbers, phase, scheduler)
    np.testing.assert_allclose(rates, [1e-3] * 12, rtol=1e-6)


def test_rates_of_batches_hold_until_the_next_one_or_the_end_of_the_phase(numbers):
    phase = Phase(epochs=2, learning_rate=0.1, decay="linear")
    rates = rates_of(numbers, [phase, phase], at_begin=0.3, rates={2: 0.2, 4: 0.4})
    planned = [0.1, 0.5 / 6, 0.4 / 6, 0.3 / 6, 0.2 / 6, 0.1 / 6]
    expected = [0.3, 0.3, 0.2, 0.2, 0.4, 0.4, *planned]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise RuntimeError("interrupted")


def test_a_cut_multiplies_the_rest_of_its_phase_also_after_a_resume(numbers, tmp_path):
    def plateau():
        return keras.callbacks.ReduceLROnPlateau(
            "loss", patience=1, min_delta=100.0, factor=0.1
        )

    schedule = [
        Phase(epochs=3, learning_rate=0.1, decay="linear"),
        Phase(epochs=1, learning_rate=0.01, decay="constant"),
    ]
    planned = np.concatenate([0.1 * np.arange(9, 0, -1) / 9, [0.01] * 3])
    cut = [1.0] * 6 + [0.1] * 3 + [1.0] * 3  # the first epoch has nothing to beat
    options = {"directory": tmp_path, "checkpoints": Checkpoints(steps=1)}
    with pytest.raises(RuntimeError, match="interrupted"):
        rates_of(numbers, schedule, plateau(), Interrupt(2), **options)
    resumed = Assign()  # its rates of the first run are in the checkpoint
    fit(
        make_plain_model(),
        *numbers,
        schedule=schedule,
        optimizer=Sums(0.7),
        callbacks=[plateau(), Interrupt(-1), resumed],
        loss=LOSS,
        batch_size=4,
        verbose=0,
        resume=True,
        **options,
    )
    np.testing.assert_allclose(resumed.seen, planned * cut, rtol=1e-6)


def test_the_rate_of_an_inner_optimizer_is_read_and_written():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5))
    rate = LearningRate(optimizer)
    with rate.open_to_callbacks([]):
        rate.show(0.1)
        assert float(optimizer.inner_optimizer.learning_rate) == pytest.approx(0.1)
        optimizer.learning_rate = 0.2
        np.testing.assert_allclose(rate.scaled([0.1, 0.05]), [0.2, 0.2], rtol=1e-6)
        rate.begin_phase(0.3)
        assert optimizer.inner_optimizer.weight_decay == 0.3
    assert float(optimizer.inner_optimizer.learning_rate) == 0.5
    assert optimizer.inner_optimizer.weight_decay is None
    muon = keras.optimizers.Muon(0.1)  # decays vectors by another attribute
    LearningRate(muon).begin_phase(0.0)
    assert muon.weight_decay is muon.adam_weight_decay is None
    # tlkit 0.1 stored a factor only.
    rate.set_state({"factor": 0.5})
    assert rate.scaled([0.1]) == [0.05]


def test_weights_that_a_callback_loads_do_not_set_the_rate(tmp_path):
    model = make_plain_model()
    model.compile(keras.optimizers.SGD(0.5), LOSS)
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "model.weights.h5")
    rate = LearningRate(model.optimizer)
    with rate.open_to_callbacks([]):
        rate.show(0.1)
        model.load_weights(tmp_path / "model.weights.h5")
        rate.show(0.1)
        assert rate.absolute is None
        assert float(model.optimizer.learning_rate) == pytest.approx(0.1)


def test_a_schedule_that_a_callback_assigns_is_an_error():
    optimizer = keras.optimizers.SGD(0.5)
    rate = LearningRate(optimizer)
    with rate.open_to_callbacks([]), pytest.raises(TrainingError, match="Assign a num"):
        optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.1, 5)
        rate.show(0.1)
