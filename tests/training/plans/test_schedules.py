"""Phases are checked, print as the call that makes them, and have rates."""

import dataclasses
import math

import numpy as np
import pytest

import tlkit
from tlkit.errors import PlanError
from tlkit.training import Phase, gradual, head_only, head_then_all, learning_rates


@pytest.mark.parametrize(
    "phase",
    [
        Phase("head"),
        Phase(2, epochs=3, learning_rate=1e-4, warmup=0.1),
        Phase(["stage3", "layer_1*"], steps=7, decay="linear", batch_norm="train"),
        Phase(train="all", weight_decay=0.0, name="fine"),
        Phase(1, epochs=9, patience=2, layer_decay=1 / 2.6, decay="slanted"),
    ],
)
def test_a_phase_prints_as_the_call_that_makes_it(phase):
    assert eval(repr(phase), {"Phase": Phase}) == phase


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"train": "stage3"}, r"train=\['stage3'\]"),
        ({"train": -1}, "train=-1"),
        ({"train": True}, "train=True"),
        ({"train": []}, "train"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"epochs": 1, "steps": 1}, "not both"),
        ({"learning_rate": -0.1}, "learning_rate must be a number of 0 or more"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"decay": "step"}, "'cosine', 'linear', 'constant', 'slanted'; got 'step'"),
        ({"layer_decay": 0.0}, "layer_decay must be a number above 0 and at most 1"),
        ({"layer_decay": 2.6}, "got 2.6"),
        ({"layer_decay": "0.5"}, "layer_decay"),
        ({"layer_decay": None}, "layer_decay"),
        ({"epochs": 5, "patience": 0}, "patience must be a whole number of 1"),
        ({"epochs": 5, "patience": 1.5}, "patience"),
        ({"epochs": 5, "patience": True}, "patience"),
        (
            {"steps": 5, "patience": 2},
            r"steps=5\. Type Phase\(…, epochs=30, patience=2",
        ),
        ({"patience": 2}, r"Type Phase\(…, epochs=30, patience=2\)"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"batch_norm": "on"}, "frozen"),
        ({"name": ""}, "name"),
    ],
)
def test_a_wrong_argument_is_named(arguments, word):
    with pytest.raises(PlanError, match=word):
        Phase(**arguments)


def test_a_phase_lasts_for_one_epoch_if_nothing_is_said():
    assert (Phase().epochs, Phase().steps) == (1, None)
    assert (Phase(steps=5).epochs, Phase(steps=5).steps) == (None, 5)


def test_the_head_alone_has_all_its_epochs():
    assert head_only(epochs=4) == [Phase("head", epochs=4)]


def test_head_then_all_waits_for_the_head_and_lowers_the_rate():
    head, everything = head_then_all(epochs=5, layer_decay=0.9, batch_norm="train")
    assert head == Phase(
        "head", epochs=30, learning_rate=3e-3, decay="constant", patience=3
    )
    assert everything == Phase(
        "all",
        epochs=5,
        learning_rate=5e-5,
        warmup=0.1,
        layer_decay=0.9,
        batch_norm="train",
    )


@pytest.mark.parametrize("schedule", [head_then_all, gradual])
def test_a_head_without_patience_has_a_rate_that_falls(schedule):
    head, *_ = schedule(head_epochs=2, head_learning_rate=0.1, head_patience=None)
    assert head == Phase("head", epochs=2, learning_rate=0.1, decay="cosine")


def test_gradual_thaws_one_more_block_each_phase():
    head, *thawing = gradual(blocks=3, epochs=2, learning_rate=1e-3)
    assert (head.train, head.patience, head.layer_decay) == ("head", 3, 1.0)
    assert [phase.train for phase in thawing] == [1, 2, 3]
    assert {dataclasses.replace(phase, train=1) for phase in thawing} == {
        Phase(
            1,
            epochs=2,
            learning_rate=1e-3,
            warmup=0.1,
            decay="slanted",
            layer_decay=1 / 2.6,
        )
    }
    assert [p.title for p in gradual(blocks=2)] == ["head", "last 1", "last 2"]
    assert {p.layer_decay for p in gradual(layer_decay=1)} == {1}


@pytest.mark.parametrize(
    "options, word",
    [
        ({"blocks": 0}, "blocks"),
        ({"head_patience": 0}, "patience"),
        ({"layer_decay": 1.5}, "layer_decay"),
    ],
)
def test_a_wrong_argument_of_a_ready_schedule_is_named(options, word):
    with pytest.raises(PlanError, match=word):
        gradual(**options)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"decay": "constant"}, [1, 1, 1, 1]),
        ({"decay": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"decay": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"decay": "linear", "warmup": 0.5}, [0.5, 1, 1, 0.5]),
        ({"decay": "constant", "warmup": 0.75}, [1 / 3, 2 / 3, 1, 1]),
        ({"decay": "slanted"}, [1, 97 / 128, 66 / 128, 35 / 128]),
        ({"decay": "slanted", "warmup": 0.5}, [1 / 32, 33 / 64, 1, 33 / 64]),
        # Too short to be warm for a tenth of it.
        ({"decay": "slanted", "warmup": 0.1}, [1, 97 / 128, 66 / 128, 35 / 128]),
    ],
)
def test_learning_rates_of_four_steps(options, expected):
    rates = learning_rates(Phase(learning_rate=0.2, **options), 4)
    np.testing.assert_allclose(rates, 0.2 * np.array(expected), rtol=1e-5)


def slanted_triangle(t, steps, cut_frac, ratio, highest):
    """Equation 3 of Howard and Ruder 2018, arXiv 1801.06146, as it stands there."""
    cut = math.floor(steps * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return highest * (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize("steps, warmup", [(10, 0.1), (70, 0.1), (200, 0.25)])
def test_the_slanted_triangle_is_that_of_the_paper(steps, warmup):
    phase = Phase(learning_rate=0.01, warmup=warmup, decay="slanted")
    rates = learning_rates(phase, steps)
    expected = [slanted_triangle(t, steps, warmup, 32, 0.01) for t in range(steps)]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert rates.argmax() == warmup * steps and rates.max() == 0.01
    assert rates[0] == pytest.approx(0.01 / 32)
    # One step more, and it would have come down to where it began.
    assert rates[-1] - (rates[-2] - rates[-1]) == pytest.approx(0.01 / 32)


def test_a_warm_up_of_a_tenth_of_seventy_steps_is_seven_steps():
    rates = learning_rates(Phase(learning_rate=7.0, warmup=0.1), 70)
    np.testing.assert_allclose(rates[:8], [1, 2, 3, 4, 5, 6, 7, 7])


def test_an_empty_schedule_is_an_error(plain_model):
    for schedule in ([], "head", [1]):
        with pytest.raises(PlanError, match="A schedule is one Phase or a list"):
            tlkit.training.plan(plain_model, schedule)
