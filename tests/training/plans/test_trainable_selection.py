"""A selection covers all weights, is computed once, and holds for copies of a model."""

import itertools
import sys

import pytest
import tensorflow as tf

import tlkit
from tlkit.training import Phase, fit, gradual, plan
from tlkit.training.phase_loop import set_trainable
from tlkit.training.plans.trainable_selection import (
    learnable_weights,
    select_trainable,
    weights_at,
)
from tlkit.training.strategies.scope_copies import copy_into_scope


def paths(variables):
    return {variable.path for variable in variables}


@pytest.mark.parametrize(
    "train, batch_norm, frozen_before",
    [
        *itertools.product(
            ["head", "all", 0, 1, ["stage1"], ["stage*"]], ["frozen", "train"], [None]
        ),
        *itertools.product(["head", 1], ["train"], ["encoder", "head", "model"]),
    ],
)
def test_every_weight_is_trained_or_free_or_frozen(
    make_model, train, batch_norm, frozen_before
):
    model = make_model()
    if frozen_before == "model":
        model.trainable = False
    elif frozen_before:
        model.get_layer(frozen_before).trainable = False
    selection = select_trainable(model, Phase(train, batch_norm=batch_norm))
    groups = [selection.trained, selection.free, selection.frozen]
    assert sorted(i for group in groups for i in group) == [*range(len(model.weights))]
    tlkit.freeze(model, train=train, batch_norm=batch_norm)
    trained = weights_at(model, selection.trained)
    assert paths(model.trainable_weights) == paths(trained)
    assert set(selection.head) <= set(selection.trained)
    head = weights_at(model, selection.head)
    assert paths(head) == paths(model.get_layer("head").weights)
    assert len(learnable_weights(model)) == 8
    # Both statistics of each trained block, if they may follow the batches.
    assert len(selection.free) == 2 * len(selection.blocks) * (batch_norm == "train")


def test_one_fit_selects_once_in_each_phase(make_model, splits, monkeypatch):
    phases = []

    def counted(model, phase):
        phases.append(phase)
        return select_trainable(model, phase)

    for name, module in list(sys.modules.items()):
        if name.startswith("tlkit.") and hasattr(module, "select_trainable"):
            monkeypatch.setattr(module, "select_trainable", counted)
    schedule = [Phase("head"), Phase(1, l2_sp=0.1, layer_decay=0.5), Phase("all")]
    fit(make_model(), splits, schedule=schedule, strategy="cpu", ema=0.9, verbose=0)
    assert phases == schedule


@pytest.mark.parametrize("kind", ["image", "text", "plain"])
def test_a_plan_holds_for_a_copy_in_the_scope_of_a_strategy(
    make_model, text_encoder, plain_model, kind
):
    if kind == "image":
        model = make_model()
    elif kind == "text":
        model = tlkit.text_classifier(text_encoder, ["a", "b"])
    else:
        model = plain_model
    schedule = [Phase("all")] if kind == "plain" else gradual(blocks=2)
    planned = plan(model, schedule)
    copy = copy_into_scope(model, tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert plan(copy, schedule) == planned
    for phase in planned.phases:
        trained = phase.trained_weights(copy)
        assert [v.path for v in trained] == [
            v.path for v in phase.trained_weights(model)
        ]
        assert not {id(v) for v in trained} & {id(v) for v in model.weights}
        set_trainable(copy, phase)
        assert {id(v) for v in copy.trainable_weights} == {id(v) for v in trained}
