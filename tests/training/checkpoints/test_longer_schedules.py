"""A run goes on with a schedule that begins with the phases that it has finished."""

import keras
import numpy as np
import pytest

import tlkit
from tests.training.conftest import LABELS
from tlkit.errors import TrainingError
from tlkit.training import Phase, fit
from tlkit.training.checkpoints.fingerprint import differences

STEADY = {"learning_rate": 1e-2, "decay": "constant"}
HEAD, LONGER = Phase("head", epochs=2, **STEADY), Phase("head", epochs=4, **STEADY)
ALL = Phase("all", epochs=1, l2_sp=0.1, **STEADY)


def run(encoder, schedule, directory=None, **options):
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 255, (12, 8, 8, 3)).astype("uint8"), np.arange(12) % 3
    keras.utils.set_random_seed(0)
    model = tlkit.image_classifier(encoder, LABELS, image_size=8, dropout=0.2)
    report = fit(
        model,
        x,
        y,
        schedule=schedule,
        batch_size=4,
        directory=directory,
        ema=0.9,
        cache=False,
        verbose=0,
        **options,
    )
    return model.get_weights(), report


def assert_same(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[1].history == other[1].history
    assert [p.epochs for p in one[1].phases] == [p.epochs for p in other[1].phases]


def test_more_epochs_and_more_phases(image_encoder, tmp_path):
    run(image_encoder, HEAD, tmp_path)
    with pytest.raises(TrainingError) as caught:
        run(image_encoder, Phase("head", **STEADY), tmp_path, resume=True)
    assert "schedule: phase 1 had epochs=2, now 1" in str(caught.value)
    resumed = run(image_encoder, [LONGER, ALL], tmp_path, resume=True)
    assert_same(resumed, run(image_encoder, [LONGER, ALL]))


def facts(*phases):
    names = ("train", "epochs", "steps", "learning_rate")
    return {"schedule": [{n: getattr(p, n) for n in names} for p in phases]}


def test_only_phases_that_have_not_begun_may_change():
    saved = facts(HEAD, ALL)
    other = Phase(1, steps=3)
    assert differences(saved, facts(HEAD, other, ALL), begun=1) == []
    assert differences(saved, facts(LONGER, other), begun=1) == []
    assert differences(saved, facts(HEAD, other), begun=0) == []
    assert differences(saved, facts(LONGER, ALL), begun=2) == [
        "schedule: phase 1 had epochs=2, now 4"
    ]
    assert differences(saved, facts(HEAD), begun=1) == [
        "schedule: it had 2 phases, now 1"
    ]
    assert differences(saved, facts(other, ALL), begun=1)
