"""Ctrl-C and SIGTERM end a run within a batch, and it goes on bit for bit."""

import contextlib
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.conftest import make_plain_model
from tlkit.training import Phase, fit
from tlkit.training.activations import frozen_pass
from tlkit.training.checkpoints.checkpoint_files import latest
from tlkit.training.loop.interrupts import Interrupts

STOPS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


def kill_self(number):
    os.kill(os.getpid(), number)


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# === The pass over the frozen blocks ===


class Writes:
    """Counts the batches of activations; sends a signal after some of them."""

    def __init__(self, monkeypatch):
        self.count, self.stop_after, self.number = 0, None, None
        self._write = frozen_pass._write
        monkeypatch.setattr(frozen_pass, "_write", self)

    def __call__(self, *arguments):
        self._write(*arguments)
        self.count += 1
        if self.count == self.stop_after:
            kill_self(self.number)


@pytest.fixture
def writes(monkeypatch):
    return Writes(monkeypatch)


def train(model, data, cache, directory, *, other_head=False, **options):
    kernel = model.get_layer("head").dense.kernel
    random = np.random.default_rng(other_head)  # which the checkpoint has to replace
    kernel.assign(random.normal(size=kernel.shape))
    schedule = [Phase("head", epochs=1, learning_rate=1e-2)]
    kwargs = {"schedule": schedule, "batch_size": 4, "verbose": 1, "cache": cache}
    fit(model, *data, directory=directory, **kwargs, **options)
    return model


def test_a_pass_over_frozen_blocks_is_taken_up_where_it_stopped(
    make_model, pictures, writes, tmp_path, capsys
):
    cache = tlkit.ActivationCache("disk", directory=tmp_path / "whole")
    whole = train(make_model(), pictures, cache, None)
    batches, writes.count = writes.count, 0
    assert batches == 8
    cache = tlkit.ActivationCache("disk", directory=tmp_path / "cache")
    for number, stop in STOPS.items():  # the second one in the rest of the pass
        writes.count, writes.stop_after, writes.number = 0, 3, number
        with pytest.raises(stop):
            train(make_model(), pictures, cache, tmp_path / "run", resume=True)
        assert writes.count == 3
    said = capsys.readouterr().err
    assert "12 of 30 examples are cached" in said
    assert "24 of 30 examples are cached" in said
    writes.count, writes.stop_after = 0, None
    resumed = train(
        make_model(), pictures, cache, tmp_path / "run", resume=True, other_head=True
    )
    assert writes.count == 2
    assert_same(resumed, whole)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # nothing is left over


def test_damaged_activations_of_an_interrupted_run_are_computed_again(
    text_encoder, writes, tmp_path
):
    texts = ["good film " * (k % 5 + 1) + "!" for k in range(30)], np.arange(30) % 2

    def run(cache, **options):
        model = tlkit.text_classifier(text_encoder, ["bad", "good"], dropout=0.0)
        return train(model, texts, cache, None, **options)

    whole = run("memory")
    cache = tlkit.ActivationCache("disk", directory=tmp_path)
    writes.count, writes.stop_after, writes.number = 0, 3, signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        run(cache)
    (partial,) = tmp_path.iterdir()
    column = np.memmap(partial / "column-0.bin", np.float32, "r+").reshape(30, -1)
    column[3] += 1  # in the second batch: the longest texts come first
    column.flush()
    writes.count, writes.stop_after = 0, None
    resumed = run(cache)
    # The first of the eight batches verifies the activations; the third one is intact.
    assert writes.count == 7
    assert_same(resumed, whole)


def test_activations_in_memory_are_lost_but_the_run_is_not(
    make_model, pictures, writes, tmp_path, capsys
):
    whole = train(make_model(), pictures, "memory", None)
    writes.count, writes.stop_after, writes.number = 0, 3, signal.SIGTERM
    with pytest.raises(SystemExit) as stop:
        train(make_model(), pictures, "memory", tmp_path)
    assert stop.value.code == 143 and writes.count == 3
    assert 'cache="disk" keeps them' in capsys.readouterr().err
    resumed = train(
        make_model(), pictures, "memory", tmp_path, resume=True, other_head=True
    )
    assert_same(resumed, whole)


# === Training and validation ===


class SignalAt(keras.callbacks.Callback):
    """Sends SIGTERM after the second batch of a validation; counts what follows."""

    def __init__(self, validation):
        super().__init__()
        self.left, self.after = validation, None

    def on_test_begin(self, logs=None):
        self.left -= 1

    def on_test_batch_end(self, batch, logs=None):
        if self.after is not None:
            self.after += 1
        elif self.left == 0 and batch == 1:
            self.after = 0
            kill_self(signal.SIGTERM)

    def get_state(self):  # not of the run
        return {}

    def set_state(self, state):
        pass


def train_plain(model, numbers, directory=None, *, callbacks=(), **options):
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    report = fit(
        model,
        *numbers,
        validation_data=numbers,
        batch_size=2,
        schedule=[Phase("all", epochs=3, learning_rate=1e-2)],
        ema=0.9,
        callbacks=callbacks,
        directory=directory,
        verbose=0,
        **options,
    )
    return model, report


@keras.saving.register_keras_serializable("tests")
class SignalInTrace(keras.layers.Layer):
    """Sends a signal while it is traced."""

    armed = False

    def call(self, inputs):
        if SignalInTrace.armed and not tf.executing_eagerly():
            SignalInTrace.armed = False
            kill_self(signal.SIGINT)
        return inputs


def test_a_run_that_is_stopped_in_a_trace_and_in_a_validation_goes_on(
    numbers, tmp_path
):
    def model():
        return keras.Sequential(
            [keras.Input((4,)), SignalInTrace(), make_plain_model()]
        )

    whole, report = train_plain(model(), numbers)
    stopped = model()
    SignalInTrace.armed = True
    with pytest.raises(KeyboardInterrupt):
        train_plain(stopped, numbers, tmp_path)
    assert latest(tmp_path).state["position"]["updates"] == 0
    callback = SignalAt(validation=2)
    with pytest.raises(SystemExit):
        train_plain(model(), numbers, tmp_path, callbacks=[callback], resume=True)
    assert callback.after == 0
    resumed, resumed_report = train_plain(model(), numbers, tmp_path, resume=True)
    assert_same(resumed, whole)
    assert resumed_report.history == report.history


# === The handler ===


@contextlib.contextmanager
def handler(number, action):
    before = signal.signal(number, action)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_second_signal_takes_effect_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        with interrupts.deferred():
            kill_self(signal.SIGINT)
            assert interrupts.received == signal.SIGINT
            kill_self(signal.SIGINT)
            raise AssertionError("not reached")


def test_a_deferred_signal_is_raised_at_the_end():
    reached = []
    with pytest.raises(SystemExit), Interrupts() as interrupts:
        with interrupts.deferred():
            kill_self(signal.SIGTERM)
            reached.append(1)
        reached.append(2)
    assert reached == [1]


def test_ignored_signals_stay_ignored():
    with handler(signal.SIGINT, signal.SIG_IGN), Interrupts() as interrupts:
        kill_self(signal.SIGINT)
        assert interrupts.received is None
