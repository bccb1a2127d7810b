"""Two models over one encoder have options of their own."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.models.text import Packing

TEXTS = ["good film", "the bad films ! good good good bad the the film", ""]
PAIRS = [("good film", "bad"), ("the bad films ! good", "good good bad the")]
IMAGES = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype("uint8")
FIRST = {"length": 8}
# Options of the second model, and what it predicts.
TEXT_OPTIONS = {
    "length and truncation": ({"length": 6, "truncation": "tail"}, TEXTS),
    "windows": ({"length": 6, "windows": 2, "overlap": 1}, TEXTS),
    "pairs": ({"length": 10, "pairs": True}, PAIRS),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("texts") / "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "1", size=8)


def with_head(model):
    """Returns the model with random weights in its head, the same for every model."""
    random = np.random.default_rng(2)
    dense = model.get_layer("head").dense
    dense.kernel.assign(random.normal(size=dense.kernel.shape))
    return model


def text_model(source, options):
    return with_head(tlkit.text_classifier(source, ["a", "b"], **options))


def image_model(source, **options):
    return with_head(tlkit.image_classifier(source, ["a", "b"], **options))


def scores(model, examples):
    found = tlkit.predict(model, examples, verbose=0)
    return np.array([[row.scores[label] for label in "ab"] for row in found])


def assert_same_scores(model, alone, examples):
    np.testing.assert_allclose(
        scores(model, examples), scores(alone, examples), rtol=1e-6
    )


@pytest.mark.parametrize("case", TEXT_OPTIONS)
def test_each_text_model_predicts_as_it_does_alone(texts, case, tmp_path):
    options, examples = TEXT_OPTIONS[case]
    encoder = tlkit.load_encoder(texts, output="sequence_output")
    facts = encoder.facts
    first, second = text_model(encoder, FIRST), text_model(encoder, options)
    assert encoder.facts is facts
    for name, model, own, data in (
        ("first", first, FIRST, TEXTS),
        ("second", second, options, examples),
    ):
        alone = text_model(texts, own)
        assert models.packing_of(model) == Packing(**own)
        assert models.preprocessing(model) == models.preprocessing(alone)
        assert_same_scores(model, alone, data)
        model.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert models.packing_of(loaded) == Packing(**own)
        assert_same_scores(loaded, alone, data)


def test_each_text_model_is_exported_with_its_own_options(texts, tmp_path):
    encoder = tlkit.load_encoder(texts, output="sequence_output")
    first = text_model(encoder, FIRST)
    text_model(encoder, {"length": 6, "truncation": "tail"})
    path = tlkit.export(first, tmp_path / "served", examples=TEXTS, verbose=0)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = served(text=tf.constant(TEXTS))
    expected = scores(text_model(texts, FIRST), TEXTS)
    np.testing.assert_allclose(outputs["scores"], expected, rtol=1e-5)


def test_each_image_model_scales_pixels_by_its_own_range(images, tmp_path):
    encoder = tlkit.load_encoder(images)
    facts = encoder.facts
    first = image_model(encoder, pixels="symmetric")
    second = image_model(encoder)
    assert encoder.facts is facts and facts.pixels is None
    for model, pixels in ((first, "symmetric"), (second, "unit")):
        alone = image_model(images, pixels=pixels)
        assert models.facts_of(model).pixels == pixels
        assert_same_scores(model, alone, IMAGES)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert models.facts_of(loaded).pixels == pixels
        assert_same_scores(loaded, alone, IMAGES)


def test_each_image_model_is_exported_with_its_own_range(images, tmp_path):
    encoder = tlkit.load_encoder(images)
    first = image_model(encoder, pixels="symmetric")
    image_model(encoder, pixels="byte")
    path = tlkit.export(first, tmp_path / "served", verbose=0)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    encoded = tf.stack([tf.io.encode_png(image) for image in IMAGES])
    outputs = served(image_bytes=encoded)
    expected = scores(image_model(images, pixels="symmetric"), IMAGES)
    np.testing.assert_allclose(outputs["scores"], expected, rtol=1e-4)


def test_a_published_encoder_has_the_range_of_its_model(images, tmp_path):
    encoder = tlkit.load_encoder(images)
    first = image_model(encoder, pixels="symmetric")
    image_model(encoder, pixels="byte")
    path = tlkit.publish(first, tmp_path / "published", verbose=0)
    assert tlkit.load_encoder(path).facts.pixels == "symmetric"


def test_a_preprocessor_belongs_to_one_model(texts, tmp_path):
    model = text_model(texts, {"length": 6})
    tlkit.publish(model, tmp_path / "encoder", verbose=0)
    preprocessor = tmp_path / "encoder_preprocess" / "1"
    encoder = tlkit.load_encoder(texts, output="sequence_output")
    first = text_model(encoder, FIRST | {"preprocessor": preprocessor})
    second = text_model(encoder, FIRST)
    assert models.facts_of(first).preprocessor == str(preprocessor)
    assert models.preprocessing(second) == models.preprocessing(
        text_model(texts, FIRST)
    )
    assert isinstance(models.preprocessing(first), models.text.SavedPreprocessor)
    first.save(tmp_path / "first.keras")
    loaded = keras.saving.load_model(tmp_path / "first.keras")
    assert_same_scores(loaded, first, TEXTS[:1])
    shutil.rmtree(preprocessor)


def test_facts_cannot_be_changed(texts):
    encoder = tlkit.load_encoder(texts)
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.facts.kind = "image"


def test_an_old_file_keeps_its_options_when_it_is_saved_again(tmp_path):
    """tlkit 0.1 stored a model's options in the configuration of its encoder."""
    from tests.compatibility.write import HERE

    model = keras.saving.load_model(HERE / "text.keras")
    packing = Packing(8, "tail", windows=2, overlap=2)
    assert models.packing_of(model) == packing
    model.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    assert models.packing_of(again) == packing
    assert_same_scores(again, model, TEXTS)
    shorter = text_model(again.get_layer("encoder"), FIRST)
    assert models.packing_of(shorter) == Packing(8)
    assert models.packing_of(again) == packing
