"""Real encoders: their blocks, and that what comes out is what went in."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.encoders.compare import assert_close
from tlkit.encoders.saved_model.saved_model_reader import read_saved_model

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def load():
    return lambda name: tlkit.load_encoder(tlkit.samples.encoder(name))


def test_a_resnet_has_a_stem_and_four_stages(load):
    encoder = load("resnet50")
    names = ["stem", "stage0", "stage1", "stage2", "stage3"]
    assert [block.name for block in encoder.blocks] == names
    assert [len(block.parts) for block in encoder.blocks] == [0, 3, 4, 6, 3]
    assert sum(block.batch_norms for block in encoder.blocks) == 53


def test_a_vgg_has_five_blocks(load):
    encoder = load("vgg16")
    assert [block.name for block in encoder.blocks] == [
        f"block{i}" for i in range(1, 6)
    ]
    assert [len(block.parts) for block in encoder.blocks] == [2, 2, 3, 3, 3]


def test_a_bert_has_embeddings_layers_and_a_pooler(load):
    encoder = load("minilm")
    names = ["embeddings", *(f"layer_{i}" for i in range(6)), "pooler"]
    assert [block.name for block in encoder.blocks] == names
    ids = np.random.default_rng(0).integers(1000, 2000, (2, 9)).astype("int32")
    inputs = {
        "input_word_ids": tf.constant(ids),
        "input_mask": tf.ones_like(ids),
        "input_type_ids": tf.zeros_like(ids),
    }
    module = read_saved_model(tlkit.samples.encoder("minilm"))
    assert_close(encoder(inputs), module.endpoints[False](inputs), 1e-5)
    maps = encoder(inputs, taps=["layer_5"])
    np.testing.assert_allclose(
        maps["layer_5"], encoder(inputs)["sequence_output"], atol=1e-4
    )
