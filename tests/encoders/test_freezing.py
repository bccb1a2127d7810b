"""Choices of blocks, and who may write `trainable`."""

import keras
import pytest

import tlkit
from tlkit.encoders import choose_blocks, find_encoder
from tlkit.errors import EncoderError, PlanError


def names(blocks):
    return [block.name for block in blocks]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("head", []),
        ("all", ["conv1", "conv2", "conv3"]),
        (0, []),
        (2, ["conv2", "conv3"]),
        (3, ["conv1", "conv2", "conv3"]),
        (["conv2"], ["conv2"]),
        (["conv3", "conv1"], ["conv1", "conv3"]),
        (["conv[12]"], ["conv1", "conv2"]),
        (["conv3.1"], ["conv3.1"]),
        (["conv3*"], ["conv3"]),  # the block and so its parts
        (("conv2.0", "conv3"), ["conv2.0", "conv3"]),
        (["conv3.1", "conv3"], ["conv3"]),
    ],
)
def test_choices(opened, train, expected):
    encoder = opened("keras2")
    assert names(choose_blocks(encoder.blocks, train)) == expected
    chosen = tlkit.freeze(encoder, train=train)
    assert names(chosen) == expected
    trained = {id(v) for block in chosen for v in block.learnable}
    assert {id(v) for v in encoder.trainable_variables} == trained


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (4, "has 3 blocks: conv1, conv2, conv3. Give 0 to 3"),
        (-1, "Give 0 to 3"),
        (True, "Received: train=True"),
        ("conv1", "a list of patterns"),
        (1.5, "Received: train=1.5"),
        (["conv1", "stage7"], "pattern 'stage7'. The blocks are: conv1, conv2, conv3"),
    ],
)
def test_choices_that_fit_nothing(opened, train, message):
    encoder = opened("keras2")
    tlkit.freeze(encoder, train=1)
    before = {id(v) for v in encoder.trainable_variables}
    with pytest.raises(PlanError) as caught:
        tlkit.freeze(encoder, train=train)
    assert message in str(caught.value)
    assert {id(v) for v in encoder.trainable_variables} == before


def test_batch_norm_is_one_of_two(opened):
    encoder = opened("keras2")
    tlkit.freeze(encoder, train="all", batch_norm="train")
    assert encoder.batch_norm == "train"
    tlkit.freeze(encoder, train=1)
    assert encoder.batch_norm == "train"  # unchanged unless it is said
    with pytest.raises(PlanError, match='"frozen" or "train"'):
        tlkit.freeze(encoder, train="head", batch_norm="thawed")
    assert len(encoder.trainable_variables) == len(encoder.blocks[-1].learnable)


def test_the_encoder_of_a_model(opened):
    encoder = opened("by_hand")
    inputs = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), encoder])
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    assert find_encoder(model) is encoder
    tlkit.freeze(model, train=1)
    assert len(model.trainable_variables) == 3 + 2
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert find_encoder(plain) is None
    with pytest.raises(PlanError, match="no tlkit encoder"):
        tlkit.freeze(plain, train=1)


def test_a_block_that_is_not_there(opened):
    with pytest.raises(EncoderError, match="conv1, conv2, conv3"):
        opened("keras2").block("conv9")
