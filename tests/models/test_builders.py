"""Models around encoders: what they hold, and that they survive a file."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.errors import EncoderError

TEXTS = ["good film", "the bad films !", "good", ""]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "1")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("texts") / "1")


def with_random_head(model):
    random = np.random.default_rng(2)
    dense = model.get_layer("head").dense
    dense.kernel.assign(random.normal(size=dense.kernel.shape))
    return model


def token_ids(model):
    return models.preprocessing(model)(tf.constant(TEXTS))


def test_an_image_classifier_scales_pixels_and_pools(images):
    model = with_random_head(
        tlkit.image_classifier(images, ["a", "b"], image_size=8, pixels="symmetric")
    )
    assert model.input_shape == (None, 8, 8, 3)
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype("float32")
    features = tf.saved_model.load(images)(pictures / 127.5 - 1, training=False)
    dense = model.get_layer("head").dense
    expected = features @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(model(pictures), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "pooling, width, blocks",
    [
        ("mean", 8, ["embeddings", "layer_0", "layer_1"]),
        ("pooled", 8, ["embeddings", "layer_0", "layer_1", "pooler"]),
        ("both", 16, ["embeddings", "layer_0", "layer_1", "pooler"]),
    ],
)
def test_a_text_classifier_has_the_blocks_that_its_pooling_needs(
    texts, pooling, width, blocks
):
    model = tlkit.text_classifier(texts, ["a", "b"], pooling=pooling)
    assert [block.name for block in model.get_layer("encoder").blocks] == blocks
    assert model.get_layer("head").dense.kernel.shape == (width, 2)
    inputs = token_ids(model)
    outputs = tf.saved_model.load(texts)(inputs, training=False)
    mask = tf.cast(inputs["input_mask"], tf.float32)[..., tf.newaxis]
    total = tf.reduce_sum(outputs["sequence_output"] * mask, axis=1)
    mean = total / tf.reduce_sum(mask, axis=1)
    pooled = outputs["pooled_output"]
    expected = {"mean": mean, "pooled": pooled, "both": tf.concat([pooled, mean], -1)}
    trunk, _ = models.split(model)
    np.testing.assert_allclose(trunk(inputs), expected[pooling], rtol=1e-5, atol=1e-6)


def test_features_and_head_together_are_the_model(texts):
    model = with_random_head(tlkit.text_classifier(texts, ["a", "b", "c"]))
    trunk, top = models.split(model)
    inputs = token_ids(model)
    np.testing.assert_allclose(top(trunk(inputs)), model(inputs), rtol=1e-6)
    head = {id(v) for v in model.get_layer("head").variables}
    assert {id(v) for v in top.variables} == head


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_saved_model_comes_back_whole(kind, images, texts, tmp_path):
    if kind == "image":
        model = tlkit.image_classifier(images, ["a", "b"], image_size=8)
        inputs = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3))
    else:
        model = tlkit.text_classifier(texts, ["a", "b"], length=24)
        inputs = token_ids(model)
    with_random_head(model)
    tlkit.freeze(model, train=1, batch_norm="train")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert models.task_of(again) == models.task_of(model)
    assert models.preprocessing(again) == models.preprocessing(model)
    names = [v.path for v in model.trainable_variables]
    assert [v.path for v in again.trainable_variables] == names
    assert again.get_layer("encoder").batch_norm == "train"


def test_the_model_works_in_plain_fit(texts):
    model = tlkit.text_classifier(texts, ["a", "b"], dropout=0.0)
    tlkit.freeze(model, train="head")
    before = [v.numpy() for v in model.get_layer("encoder").variables]
    task = model.get_layer("head").task
    model.compile("adam", loss=task.loss(), metrics=task.metrics(), jit_compile=False)
    history = model.fit(token_ids(model), np.array([0, 1, 0, 1]), epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    for old, new in zip(before, model.get_layer("encoder").variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_any_task_builds_the_model_of_the_encoders_kind(images, texts):
    task = tlkit.tasks.Classification(("a", "b"))
    assert tlkit.build_model(images, task, image_size=8).name == "image_classifier"
    text = tlkit.build_model(tlkit.load_encoder(texts), task)
    assert text.name == "text_classifier"


def test_a_fixed_size_is_the_only_one_allowed(tmp_path):
    source = write_image_encoder(tmp_path / "fixed" / "1", size=12)
    assert tlkit.image_classifier(source, 2).input_shape == (None, 12, 12, 3)
    with pytest.raises(EncoderError, match="12 by 12 pixels only.*image_size=16"):
        tlkit.image_classifier(source, 2, image_size=16)


def test_encoders_of_the_other_kind_raise_an_error(images, texts):
    with pytest.raises(EncoderError, match="is for texts. Use tlkit.text_classifier"):
        tlkit.image_classifier(tlkit.load_encoder(texts), 2)
    with pytest.raises(EncoderError, match="is for images. Use tlkit.image_class"):
        tlkit.text_classifier(images, 2)


def test_a_text_encoder_without_vocabulary_asks_for_a_preprocessor(texts):
    model = tlkit.text_classifier(texts, 2)
    encoder = model.get_layer("encoder")
    encoder._facts = dataclasses.replace(encoder.facts, vocabulary=())
    with pytest.raises(EncoderError, match="preprocessor=folder_or_handle"):
        models.preprocessing(model)
