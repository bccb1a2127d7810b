"""Phases are checked, print as the call that makes them, and have rates."""

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
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"decay": "step"}, "cosine"),
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


def test_the_ready_schedules():
    assert head_only(epochs=4) == [Phase("head", epochs=4)]
    head, everything = head_then_all(head_epochs=2, epochs=5, learning_rate=1e-4)
    assert (head.train, head.epochs, everything.train) == ("head", 2, "all")
    assert (everything.epochs, everything.learning_rate) == (5, 1e-4)
    assert everything.warmup == 0.1
    assert [p.train for p in gradual(blocks=3)] == ["head", 1, 2, 3]
    assert [p.title for p in gradual(blocks=2)] == ["head", "last 1", "last 2"]
    with pytest.raises(PlanError, match="blocks"):
        gradual(blocks=0)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"decay": "constant"}, [1, 1, 1, 1]),
        ({"decay": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"decay": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"decay": "linear", "warmup": 0.5}, [0.5, 1, 1, 0.5]),
        ({"decay": "constant", "warmup": 0.75}, [1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_learning_rates_of_four_steps(options, expected):
    rates = learning_rates(Phase(learning_rate=0.2, **options), 4)
    np.testing.assert_allclose(rates, 0.2 * np.array(expected), rtol=1e-5)


def test_an_empty_schedule_is_an_error(plain_model):
    for schedule in ([], "head", [1]):
        with pytest.raises(PlanError, match="A schedule is one Phase or a list"):
            tlkit.training.plan(plain_model, schedule)
