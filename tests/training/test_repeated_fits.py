"""A second `fit` draws other random numbers; the same program repeats all of them."""

import gc

import keras
import numpy as np

from tlkit.training import Checkpoints, Phase, fit
from tlkit.training import repeated_fits as fits


class Losses(keras.callbacks.Callback):
    """Records the mean loss after each batch, which tells the order and the dropout."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])


def make_model():
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    return keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), dense])


def losses(model, stop=None, **options):
    recorder = Losses()
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    optimizer = keras.optimizers.SGD(0.0)  # all losses are of the same weights
    options |= {"epochs": 2, "batch_size": 4, "verbose": 0}
    callbacks = [recorder, *([stop] if stop else [])]
    fit(
        model,
        x,
        np.zeros(12),
        optimizer=optimizer,
        loss="mse",
        callbacks=callbacks,
        **options,
    )
    return recorder.seen


def test_a_second_fit_continues_and_a_new_program_repeats(tmp_path):
    model = make_model()
    first, second = losses(model), losses(model)
    assert len({*first, *second}) == 12
    weights = model.get_weights()
    np.testing.assert_array_equal(weights[0], np.ones((4, 1)))  # a rate of 0 is 0

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    # A "new process": the second fit is interrupted, and a new model resumes it.
    model, options = make_model(), {"directory": tmp_path}
    assert losses(model) == first
    options["checkpoints"] = Checkpoints(steps=1)
    try:
        losses(model, Stop(), **options)
    except KeyboardInterrupt:
        pass
    assert losses(make_model(), resume=True, **options) == second


def test_seeds_and_counts():
    seeds = {fits.seed_of_fit(seed, count) for seed in (0, 1, -1) for count in range(9)}
    assert len(seeds) == 27
    assert [fits.seed_of_fit(seed, 0) for seed in (0, 7)] == [0, 7]
    model = make_model()
    fits.set_fit_count(model, 3)
    assert fits.fit_count(model) == 3
    gc.collect()
    known = len(fits._COUNTS)
    del model
    gc.collect()
    assert len(fits._COUNTS) == known - 1


def test_the_plan_tells_of_the_optimizers_own_schedule(capsys):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 5)
    x = np.ones((4, 4), "float32")
    options = {"optimizer": keras.optimizers.SGD(schedule), "loss": "mse"}
    fit(make_model(), x, np.ones(4), schedule=Phase(learning_rate=0.3), **options)
    said = capsys.readouterr().err
    assert "learning rate  optimizer's schedule" in said and "0.3" not in said
