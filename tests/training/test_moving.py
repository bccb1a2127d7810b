"""What moves and what does not, on the numbers."""

import keras
import numpy as np
import pytest

import tlkit
from tlkit.errors import TrainingError
from tlkit.models.model_prefix import FEATURES
from tlkit.training import Phase, fit
from tlkit.training.activations import cached_activations as activations


def values(model):
    return {v.path: v.numpy().copy() for v in model.weights}


def moved(model, before):
    return {v.path for v in model.weights if (v.numpy() != before[v.path]).any()}


def learnable(model, *names):
    encoder = model.get_layer("encoder")
    blocks = [block for block in encoder.blocks if block.name in names]
    inside = {v.path for block in blocks for v in block.learnable}
    return inside | {v.path for v in model.get_layer("head").weights}


def statistics(model, *names):
    encoder = model.get_layer("encoder")
    blocks = [block for block in encoder.blocks if block.name in names]
    inside = {v.path for block in blocks for v in block.variables}
    return inside - learnable(model, *names)


@pytest.mark.parametrize("cache, batch_norm", [(True, "train"), (False, "frozen")])
def test_with_the_encoder_frozen_only_the_head_moves(
    make_model, splits, cache, batch_norm
):
    model = make_model()
    before = values(model)
    phase = Phase("head", epochs=2, batch_norm=batch_norm)
    fit(model, splits, schedule=phase, cache=cache, verbose=0)
    assert moved(model, before) == learnable(model)


@pytest.mark.parametrize(
    "train, blocks, batch_norm",
    [
        (1, ["stage2"], "train"),
        (["stage1"], ["stage1"], "frozen"),
        ("all", ["stage1", "stage2"], "train"),
        ("all", ["stage1", "stage2"], "frozen"),
    ],
)
def test_exactly_the_planned_variables_move(
    make_model, splits, train, blocks, batch_norm
):
    model = make_model()
    before = values(model)
    report = fit(model, splits, schedule=Phase(train, batch_norm=batch_norm), verbose=0)
    expected = learnable(model, *blocks)
    if batch_norm == "train":
        expected |= statistics(model, *blocks)
    assert moved(model, before) == expected
    count = 2 + 3 * len(blocks)
    assert f"{count} of {count} trained variables changed" in report.plan
    assert report.phases[0].blocks == tuple(blocks)


def test_texts_move_likewise(text_encoder):
    model = tlkit.text_classifier(text_encoder, ["bad", "good"])
    texts = ["good film", "bad film !", "the good", "the bad bad films"] * 4
    before = values(model)
    labels = ["good", "bad"] * 8
    report = fit(
        model,
        texts,
        labels,
        schedule=[Phase("head"), Phase(1)],
        batch_size=4,
        verbose=0,
    )
    assert moved(model, before) == learnable(model, "layer_1")
    assert "1. head: 2 of 2 trained variables changed" in report.plan
    assert "2. last 1: 3 of 3 trained variables changed" in report.plan


class Meddler(keras.callbacks.Callback):
    """Writes to a frozen variable."""

    def on_train_batch_end(self, batch, logs=None):
        encoder = self.model.get_layer("encoder")
        encoder.blocks[0].variables[0].assign_add(
            np.ones(encoder.blocks[0].variables[0].shape)
        )


@pytest.mark.parametrize("cache", [True, False])
def test_a_frozen_variable_that_moves_stops_the_run(make_model, splits, cache):
    message = "1 frozen variables changed in phase 'head'"
    with pytest.raises(TrainingError, match=message):
        fit(
            make_model(),
            splits,
            schedule=Phase("head"),
            callbacks=[Meddler()],
            cache=cache,
            verbose=0,
        )


def test_features_are_computed_once(make_model, splits, monkeypatch):
    passes = []
    compute = activations.compute_activations

    def counted(model, prefix, feed, planned, create, **options):
        passes.append((tuple(one.cut for one in planned), feed.examples))
        return compute(model, prefix, feed, planned, create, **options)

    monkeypatch.setattr(activations, "compute_activations", counted)
    schedule = [Phase("head", epochs=2), Phase("head"), Phase(1), Phase("head")]
    report = fit(make_model(), splits, schedule=schedule, cache="memory", verbose=0)
    sizes = splits.sizes["train"], splits.sizes["validation"]
    # One pass for the features and for the cut below what the third phase trains; and
    # the features again, since the third phase has changed them.
    cuts = (FEATURES, 1)
    assert passes == [(c, size) for c in (cuts, (FEATURES,)) for size in sizes]
    assert report.history["loss"][-1] < report.history["loss"][0]


def test_moments_and_the_step_count_survive_a_phase(make_model, splits):
    model, optimizer = make_model(), keras.optimizers.AdamW()
    seen = []

    class Watcher(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([int(optimizer.iterations), moment()])

    kernel = model.get_layer("head").dense.kernel

    def moment():
        found = [
            v.numpy().copy()
            for v in optimizer.variables
            if "head" in v.path and "kernel_momentum" in v.path
        ]
        assert len(found) == 1 and found[0].shape == kernel.shape
        return found[0]

    fit(
        model,
        splits,
        # So low a rate that the second phase's gradient is that of the first.
        schedule=[Phase("head", steps=4, learning_rate=1e-9), Phase(1, steps=1)],
        batch_size=18,
        optimizer=optimizer,
        callbacks=[Watcher()],
        verbose=0,
    )
    assert [count for count, _ in seen] == [1, 2, 3, 4, 5]
    gradient = seen[0][1] / 0.1  # the first moment is (1 - beta) times the gradient
    for count, found in seen:
        np.testing.assert_allclose(found, gradient * (1 - 0.9**count), rtol=1e-3)
    built = {v.path.split("/")[-1] for v in optimizer.variables}
    assert len([name for name in built if name.endswith("_momentum")]) == 5


def test_keras_can_go_on_after_fit(make_model, splits, pictures):
    model = make_model()
    x, y = pictures[0].astype("float32"), pictures[1]
    loss = tlkit.models.task_of(model).loss()
    tlkit.freeze(model, train="head")
    model.compile("adam", loss=loss)
    model.fit(x, y, verbose=0)
    fit(model, splits, schedule=Phase(1), verbose=0)
    before = values(model)
    model.fit(x, y, verbose=0)
    assert moved(model, before) == learnable(model, "stage2")


def test_a_phase_may_turn_the_dropout_of_the_encoder_off(text_encoder):
    ended = []
    texts, labels = ["good film", "bad film", "the film", "good"], [0, 1, 2, 0]
    for dropout, seed in ((True, 0), (False, 0), (False, 1)):
        model = tlkit.text_classifier(text_encoder, ["a", "b", "c"], dropout=0.0)
        kernel = model.get_layer("head").dense.kernel
        kernel.assign(np.linspace(-1, 1, kernel.shape[0] * 3).reshape(-1, 3))
        phase = Phase("all", steps=1, learning_rate=1e-2, dropout=dropout)
        optimizer = keras.optimizers.SGD()
        options = {"optimizer": optimizer, "seed": seed, "verbose": 0}
        fit(model, texts, labels, schedule=phase, batch_size=4, **options)
        ended.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    assert np.abs(ended[0] - ended[1]).max() > 1e-5
    np.testing.assert_allclose(ended[1], ended[2], atol=1e-7)  # no masks
