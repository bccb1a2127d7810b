"""A plan says which variables a phase trains, and it comes true."""

import re

import keras
import pytest

import tlkit
from tlkit.errors import PlanError
from tlkit.training import Phase, gradual, plan
from tlkit.training.plans.trainable_selection import weights_at


def paths(variables):
    return {variable.path for variable in variables}


def test_a_plan_counts_blocks_variables_and_steps(make_model):
    made = plan(make_model(), gradual(blocks=2, head_epochs=4), examples=18)
    assert made.blocks == ("stage1", "stage2", "head")
    assert [p.blocks for p in made.phases] == [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
    # The head: 6 times 3 and 3. The stages: 108 and 216 in kernels, 8 and 12 in norms.
    assert [p.parameters for p in made.phases] == [21, 21 + 228, 21 + 228 + 116]
    assert [p.variables for p in made.phases] == [2, 5, 8]
    assert [p.frozen for p in made.phases] == [6, 3, 0]
    assert [p.cached for p in made.phases] == [True, False, False]
    assert [p.steps for p in made.phases] == [4, 1, 1]
    assert (made.learnable, made.parameters) == (8, 365)


def rows_of(made):
    """The printed table by the first word of its lines."""
    cells = [re.split(r"  +", line) for line in str(made).splitlines()[:-1]]
    return {row[0]: row[1:] for row in cells if row[0]}


def test_a_plan_prints_blocks_against_phases(make_model):
    schedule = [Phase("head", epochs=10), Phase(1, steps=7, warmup=0.25)]
    rows = rows_of(plan(make_model(), schedule, examples=64))
    assert rows == {
        "stage1": ["–", "–"],
        "stage2": ["–", "train"],
        "head": ["train", "train"],
        "variables": ["2", "5"],
        "parameters": ["21", "249"],
        "learning rate": ["0.001 cosine", "0.001 cosine, 25% warm-up"],
        "length": ["10 epochs, 20 steps", "7 steps"],
        "cached": ["features, 2 kB in memory, saves 90%", "–"],
    }


def test_a_plan_prints_layer_decay_and_patience_where_they_are_used(make_model):
    schedule = gradual(blocks=2, learning_rate=0.016, layer_decay=0.25)
    made = plan(make_model(), schedule, examples=64)
    assert [p.rates for p in made.phases] == [
        (3e-3, 3e-3, 3e-3),
        (0.001, 0.004, 0.016),
        (0.001, 0.004, 0.016),
    ]
    rows = rows_of(made)
    assert rows["stage1"] == ["–", "–", "train at 0.001"]
    assert rows["stage2"] == ["–", "train at 0.004", "train at 0.004"]
    assert rows["head"] == ["train", "train at 0.016", "train at 0.016"]
    assert rows["layer decay"] == ["–", "0.25 a block", "0.25 a block"]
    assert rows["patience"] == ["3 epochs", "–", "–"]
    assert rows["length"] == ["at most 30 epochs, 60 steps", *["1 epoch, 2 steps"] * 2]
    assert rows["learning rate"][1] == "0.016 slanted, 10% warm-up"


def test_a_plan_changes_nothing(make_model):
    model = make_model()
    model.get_layer("encoder").trainable = False
    before = [variable.trainable for variable in model.weights]
    plan(model, gradual(blocks=2))
    assert [variable.trainable for variable in model.weights] == before


@pytest.mark.parametrize(
    "schedule, word",
    [
        ([Phase("head"), Phase(3)], "2 blocks|has 2"),
        (Phase(["stage7"]), "stage7"),
    ],
)
def test_a_phase_that_does_not_fit_is_an_error(make_model, schedule, word):
    with pytest.raises(PlanError, match=word):
        plan(make_model(), schedule)


def test_a_phase_that_trains_nothing_is_an_error(image_encoder):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, tlkit.load_encoder(image_encoder)(inputs))
    with pytest.raises(PlanError, match="trains nothing"):
        plan(model, Phase("head"))
    assert plan(model, Phase(1)).phases[0].variables == 3


def test_a_model_without_an_encoder_trains_what_it_leaves_trainable(plain_model):
    plain_model.layers[0].trainable = False
    made = plan(plain_model, Phase("all"))
    assert made.blocks == ("model",)
    assert (made.phases[0].variables, made.phases[0].parameters) == (2, 18)
    frozen = weights_at(plain_model, made.phases[0].selection.frozen)
    assert paths(frozen) == paths(plain_model.layers[0].weights)
    with pytest.raises(PlanError, match="no tlkit encoder"):
        plan(plain_model, Phase("head"))


def test_a_model_without_an_encoder_has_no_layer_decay(plain_model):
    assert plan(plain_model, Phase(learning_rate=0.5)).phases[0].rates == (0.5,)
    with pytest.raises(PlanError, match="layer_decay=0.5. Leave it out, or build"):
        plan(plain_model, Phase(layer_decay=0.5))
