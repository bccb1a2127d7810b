"""Each block learns at the rate of the block after it times `layer_decay`."""

import keras
import pytest

import tlkit
from tlkit.encoders import find_encoder
from tlkit.errors import PlanError
from tlkit.training import Phase
from tlkit.training.plans.layer_decay import block_factors, rate_factors
from tlkit.training.plans.trainable_selection import select_trainable, weights_at


def factors_by_path(model, phase):
    variables = weights_at(model, select_trainable(model, phase).trained)
    factors = rate_factors(model, variables, phase.layer_decay)
    paths = ["/".join(v.path.split("/")[-2:]) for v in variables]
    return dict(zip(paths, factors, strict=True))


def test_the_last_block_has_one_decay_and_the_first_has_one_for_each():
    assert block_factors(3, 0.5) == (0.125, 0.25, 0.5)
    assert block_factors(2, 1.0) == (1.0, 1.0)
    assert block_factors(0, 0.5) == ()


def test_blocks_of_pictures_learn_at_their_depth(make_model):
    assert factors_by_path(make_model(), Phase("all", layer_decay=0.5)) == {
        "stage1/stage1_conv_kernel": 0.25,
        "stage1/stage1_conv_bn_gamma": 0.25,
        "stage1/stage1_conv_bn_beta": 0.25,
        "stage2/stage2_conv_kernel": 0.5,
        "stage2/stage2_conv_bn_gamma": 0.5,
        "stage2/stage2_conv_bn_beta": 0.5,
        "dense/kernel": 1.0,
        "dense/bias": 1.0,
    }


def test_frozen_blocks_count_too(make_model):
    found = factors_by_path(make_model(), Phase(["stage1"], layer_decay=0.5))
    assert set(found.values()) == {0.25, 1.0} and len(found) == 5
    assert found["stage1/stage1_conv_kernel"] == 0.25


@pytest.mark.parametrize("train", ["head", 1, "all"])
def test_without_a_decay_everything_learns_alike(make_model, train):
    assert set(factors_by_path(make_model(), Phase(train)).values()) == {1.0}


def test_blocks_of_texts_learn_at_their_depth(text_encoder):
    model = tlkit.text_classifier(text_encoder, ["a", "b"], pooling="pooled")
    assert factors_by_path(model, Phase("all", layer_decay=0.1)) == {
        "embeddings/word_embeddings_embeddings": pytest.approx(1e-4),
        "layer_0/transformer_layer_0_kernel": pytest.approx(1e-3),
        "layer_1/transformer_layer_1_kernel": pytest.approx(1e-2),
        "pooler/pooler_transform_kernel": pytest.approx(1e-1),
        "dense/kernel": 1.0,
        "dense/bias": 1.0,
    }


class Again(keras.layers.Layer):
    """Calls a layer that stands elsewhere too."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x)


def make_native_model():
    """Blocks of one layer, of two, and of the first one's layer again."""
    inputs = keras.Input((4,))
    first = keras.layers.Dense(4, name="block1_dense")
    x = first(inputs)
    x = keras.layers.Dense(4, name="block2_conv1")(x)
    x = keras.layers.Dense(4, use_bias=False, name="block2_conv2")(x)
    network = keras.Model(inputs, Again(first, name="block3_again")(x))
    given = keras.Input((4,))
    features = tlkit.load_encoder(network)(given)
    return keras.Model(given, keras.layers.Dense(2, name="head")(features))


def test_parts_share_the_rate_of_their_block():
    model = make_native_model()
    block = find_encoder(model).block("block2")
    assert [part.name for part in block.parts] == ["block2_conv1", "block2_conv2"]
    assert factors_by_path(model, Phase(["block2_conv*"], layer_decay=0.5)) == {
        "block2_conv1/kernel": 0.25,
        "block2_conv1/bias": 0.25,
        "block2_conv2/kernel": 0.25,
        "head/kernel": 1.0,
        "head/bias": 1.0,
    }


@pytest.mark.parametrize("train", ["all", ["block1"], ["block3"]])
def test_a_variable_of_several_blocks_has_the_rate_of_the_first(train):
    model = make_native_model()
    assert len(find_encoder(model).blocks) == 3
    found = factors_by_path(model, Phase(train, layer_decay=0.5))
    assert (found["block1_dense/kernel"], found["block1_dense/bias"]) == (0.125, 0.125)
    assert found.get("block2_conv1/kernel", 0.25) == 0.25


def test_a_model_without_an_encoder_knows_no_decay(plain_model):
    variables = plain_model.weights
    assert rate_factors(plain_model, variables, 1.0) == (1.0,) * 4
    with pytest.raises(PlanError, match="layer_decay=0.9. Leave it out"):
        rate_factors(plain_model, variables, 0.9)
