"""Keras's callbacks work in our loop as in Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tlkit.training import Phase, fit

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Recorder(keras.callbacks.Callback):
    """Writes down which hooks were called, and with which figures."""

    def __init__(self):
        super().__init__()
        self.calls, self.logs = [], {}

    def _note(self, hook, *arguments):
        *numbers, logs = arguments
        self.calls.append((hook, *numbers))
        self.logs[hook] = dict(logs or {})


for hook in ("train", "epoch", "train_batch", "test", "test_batch"):
    for end in ("begin", "end"):
        name = f"on_{hook}_{end}"
        if hook in ("train", "test"):
            setattr(Recorder, name, lambda self, logs=None, n=name: self._note(n, logs))
        else:
            setattr(
                Recorder,
                name,
                lambda self, i, logs=None, n=name: self._note(n, i, logs),
            )


def run(model, numbers, **options):
    options = {"loss": LOSS, "metrics": ["accuracy"], "verbose": 0} | options
    data = tf.data.Dataset.from_tensor_slices(numbers).batch(6)
    return fit(model, data, validation_data=data, **options)


def test_the_hooks_are_called_as_keras_calls_them(plain_model, numbers):
    ours, theirs = Recorder(), Recorder()
    report = run(plain_model, numbers, schedule=[Phase(), Phase()], callbacks=[ours])
    data = tf.data.Dataset.from_tensor_slices(numbers).batch(6)
    plain_model.compile("sgd", loss=LOSS, metrics=["accuracy"])
    plain_model.fit(
        data,
        epochs=2,
        validation_data=data,
        shuffle=False,
        callbacks=[theirs],
        verbose=0,
    )
    assert ours.calls == theirs.calls
    for hook in ("on_epoch_end", "on_train_batch_end"):
        assert set(ours.logs[hook]) == set(theirs.logs[hook])
    assert set(report.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [len(figures) for figures in report.history.values()] == [2] * 4
    assert plain_model.history.history  # as after Keras's own fit


def test_early_stopping_ends_a_phase_and_not_the_run(plain_model, numbers):
    # A loss cannot fall by more than itself, so every epoch after the first is bad.
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=2)
    report = run(
        plain_model,
        numbers,
        schedule=[Phase(epochs=9, name="one"), Phase(epochs=9, name="two")],
        callbacks=[stop],
    )
    assert [phase.epochs for phase in report.phases] == [3, 2]
    assert [phase.first_epoch for phase in report.phases] == [0, 3]


def test_early_stopping_gives_back_the_best_weights(make_model, splits):
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=1, restore_best_weights=True
    )
    model = make_model()
    # So high a rate that it gets worse at once.
    schedule = [Phase("head"), Phase("all", epochs=5, learning_rate=5.0)]
    report = fit(model, splits, schedule=schedule, callbacks=[stop], verbose=0)
    best = min(report.history["val_loss"])
    assert report.phases[1].epochs < 5
    found = tlkit.training.evaluate(model, splits.validation, verbose=0).loss
    np.testing.assert_allclose(found, best, rtol=1e-5)


def test_what_callbacks_make_of_the_rate_stays(plain_model, numbers):
    seen = []

    class Watcher(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))

    optimizer = keras.optimizers.SGD()
    halve = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: rate * (0.5 if epoch == 1 else 1.0)
    )
    phase = Phase(epochs=3, learning_rate=0.1, decay="constant")
    report = run(
        plain_model,
        numbers,
        schedule=phase,
        optimizer=optimizer,
        callbacks=[halve, Watcher()],
    )
    np.testing.assert_allclose(seen, [0.1] * 2 + [0.05] * 4, rtol=1e-5)
    np.testing.assert_allclose(report.history["learning_rate"], [0.1, 0.05, 0.05])


@pytest.mark.parametrize("compiled", [True, False])
def test_files_of_callbacks(plain_model, numbers, tmp_path, compiled):
    if compiled:
        plain_model.compile("adam", loss=LOSS)
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5", save_weights_only=True
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    run(plain_model, numbers, epochs=2, callbacks=callbacks)
    assert hasattr(plain_model, "optimizer") == compiled
    weights = plain_model.get_weights()
    plain_model.set_weights([w * 0 for w in weights])
    plain_model.load_weights(tmp_path / "best.weights.h5")
    for one, other in zip(weights, plain_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
