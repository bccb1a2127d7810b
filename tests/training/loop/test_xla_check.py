"""Steps that XLA compiles: what `fit` makes of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tlkit.errors import TrainingError
from tlkit.training import Phase, fit
from tlkit.training.loop import step as steps


def test_a_phase_is_traced_once_and_ends_as_without(make_model, splits, monkeypatch):
    made = []
    begin = steps.TrainSteps.__init__

    def remembered(self, *args, **options):
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(steps.TrainSteps, "__init__", remembered)
    schedule = [Phase(1, epochs=2), Phase("all", epochs=2, batch_norm="train")]
    ended = []
    for jit_compile, phases in ((False, schedule[:1]), (True, schedule)):
        model, epochs = make_model(), []
        after_epoch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_, m=model, e=epochs: e.append(m.get_weights())
        )
        # 18 examples: the last batch of each epoch has four.
        options = {"batch_size": 7, "jit_compile": jit_compile, "verbose": 0}
        fit(model, splits, schedule=phases, callbacks=[after_epoch], **options)
        ended.append(epochs[1])  # the first phase
    for one, other in zip(*ended, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert [one._call.experimental_get_tracing_count() for one in made] == [1] * 3


def test_texts_come_in_one_length(text_encoder):
    model = tlkit.text_classifier(text_encoder, ["a", "b"], length=16)
    texts = ["good", "good film", "the bad film !", "bad"] * 2
    schedule = Phase("all", epochs=2, learning_rate=1e-2)
    options = {"jit_compile": True, "batch_size": 3, "verbose": 0}
    report = fit(model, texts, [0, 0, 1, 1] * 2, schedule=schedule, **options)
    assert report.history["loss"][-1] < report.history["loss"][0]


def test_what_cannot_be_compiled_is_named(image_encoder):
    encoder = tlkit.load_encoder(image_encoder, open_graph=False)
    model = tlkit.image_classifier(encoder, ["a", "b"], image_size=8)
    x, y = np.zeros((4, 8, 8, 3), "uint8"), [0, 1, 0, 1]
    with pytest.raises(TrainingError, match="again for every batch"):
        fit(model, x, y, schedule=Phase("all"), jit_compile=True, verbose=0)

    class Sorted(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.strings.to_number(tf.strings.as_string(inputs))

    plain = keras.Sequential([keras.Input((3,)), Sorted(), keras.layers.Dense(1)])
    with pytest.raises(TrainingError, match="XLA cannot compile"):
        fit(plain, np.zeros((4, 3)), [0.0] * 4, loss="mse", jit_compile=True, verbose=0)
