"""L2-SP pulls the encoder's kernels back to where they came from."""

import numpy as np
import pytest

import tlkit
from tlkit.errors import PlanError


def kernels(model):
    encoder = model.get_layer("encoder")
    return [v for v in encoder.trainable_variables if len(v.shape) > 1]


def distances(model, before):
    return [
        float(np.square(v.numpy() - old).sum())
        for v, old in zip(kernels(model), before, strict=True)
    ]


def train(make_model, splits, **options):
    model = make_model()
    tlkit.freeze(model, train="all")
    before = [v.numpy() for v in kernels(model)]
    phase = tlkit.Phase(
        "all", epochs=5, learning_rate=1e-2, decay="constant", **options
    )
    tlkit.fit(model, splits, schedule=phase, batch_size=6, verbose=0)
    return distances(model, before)


def test_a_stronger_pull_keeps_kernels_closer(make_model, splits):
    weak, strong = (train(make_model, splits, l2_sp=pull) for pull in (0.1, 100.0))
    for little, much in zip(weak, strong, strict=True):
        assert much < little / 10


def test_the_loss_is_that_of_the_paper(make_model, splits):
    """One step of SGD from w to w - rate * (gradient + l2_sp * (w - published))."""
    import keras

    def steps(l2_sp):
        model = make_model()
        tlkit.freeze(model, train="all")
        before = [v.numpy() for v in kernels(model)]
        phase = tlkit.Phase(
            "all", steps=1, learning_rate=0.1, decay="constant", l2_sp=l2_sp
        )
        middle = []
        spy = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: middle.append(
                [v.numpy() for v in kernels(model)]
            )
        )
        tlkit.fit(
            model,
            splits.train.take(6),
            schedule=[phase, phase],
            optimizer=keras.optimizers.SGD(0.1),
            batch_size=6,
            callbacks=[spy],
            verbose=0,
        )
        return before, *middle

    before, first, plain = steps(0.0)
    again, pulled_first, pulled = steps(0.5)
    for old, a, b, c, d in zip(before, first, plain, pulled_first, pulled, strict=True):
        np.testing.assert_allclose(a, c, atol=1e-6)  # no distance yet, so no pull
        np.testing.assert_allclose(d, b - 0.1 * 0.5 * (a - old), atol=1e-5)
    for old, new in zip(before, again, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_negative_pull_is_refused():
    with pytest.raises(PlanError, match="l2_sp"):
        tlkit.Phase("all", l2_sp=-1.0)
