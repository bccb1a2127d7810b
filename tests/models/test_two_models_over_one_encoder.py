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
# Options of models, and what they predict.
TEXT_OPTIONS = {
    "length": (FIRST, TEXTS),
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


def assert_same_scores(examples, *same_models):
    first, *others = (scores(model, examples) for model in same_models)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-6)


@pytest.fixture(scope="module")
def text_models(texts):
    """Models over one encoder, whose facts they leave alone."""
    encoder = tlkit.load_encoder(texts, output="sequence_output")
    facts = encoder.facts
    made = {
        case: text_model(encoder, options)
        for case, (options, _) in TEXT_OPTIONS.items()
    }
    assert encoder.facts is facts
    return made


@pytest.mark.parametrize("case", TEXT_OPTIONS)
def test_each_text_model_predicts_as_it_does_alone(texts, text_models, case, tmp_path):
    options, examples = TEXT_OPTIONS[case]
    model, alone = text_models[case], text_model(texts, options)
    assert models.packing_of(model) == Packing(**options)
    assert models.preprocessing(model) == models.preprocessing(alone)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert models.packing_of(loaded) == Packing(**options)
    assert_same_scores(examples, model, alone, loaded)


def test_each_text_model_is_exported_with_its_own_options(text_models, tmp_path):
    model = text_models["length and truncation"]
    path = tlkit.export(model, tmp_path / "served", check=False, verbose=0)
    served = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = served(text=tf.constant(TEXTS))
    expected = scores(model, TEXTS)
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
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert models.facts_of(loaded).pixels == pixels
        assert_same_scores(IMAGES, model, alone, loaded)


def test_each_image_model_is_exported_with_its_own_range(images, tmp_path):
    encoder = tlkit.load_encoder(images)
    first = image_model(encoder, pixels="symmetric")
    image_model(encoder, pixels="byte")
    path = tlkit.export(first, tmp_path / "served", check=False, verbose=0)
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
    assert_same_scores(TEXTS[:1], loaded, first)
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
    assert_same_scores(TEXTS, again, model)
    shorter = text_model(again.get_layer("encoder"), FIRST)
    assert models.packing_of(shorter) == Packing(8)
    assert models.packing_of(again) == packing
