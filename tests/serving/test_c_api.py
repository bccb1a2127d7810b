"""Exports are loaded and called through the C API, as TF Serving's loader does."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.serving import c_client
from tests.tiny import write_image_encoder, write_text_encoder

pytestmark = pytest.mark.skipif(
    not c_client.has_compiler(), reason="there is no C compiler (cc)"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return c_client.build(tmp_path_factory.mktemp("program"))


def with_random_head(model):
    dense = model.get_layer("head").dense
    dense.kernel.assign(np.random.default_rng(2).normal(size=dense.kernel.shape))
    return model


def compare(program, model, path, name, raws, tolerance=1e-6, invalid=(), **kwargs):
    """Returns the largest difference of a score between C and `tlkit.predict`."""
    labels, scores = c_client.ask(program, path, [*raws, *invalid], name, **kwargs)
    assert labels[len(raws) :] == [""] * len(invalid)
    assert not scores[len(raws) :].any()
    labels, scores = labels[: len(raws)], scores[: len(raws)]
    told = tlkit.predict(model, raws)
    names = tlkit.models.task_of(model).labels
    expected = np.array([[p.scores[label] for label in names] for p in told])
    assert labels == [p.label for p in told]
    np.testing.assert_allclose(scores, expected, atol=tolerance)
    return float(np.max(np.abs(scores - expected)))


def pictures(sizes):
    random = np.random.default_rng(0)
    for height, width in sizes:
        noise = random.integers(0, 256, (1, 6, 6, 3)).astype(np.float32)
        pixels = tf.cast(tf.image.resize(noise, (height, width))[0], tf.uint8)
        yield tf.io.encode_jpeg(pixels).numpy()


def test_an_image_model_is_served_from_c(program, tmp_path):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    model = with_random_head(
        tlkit.image_classifier(source, ["cat", "dog"], image_size=8)
    )
    path = tlkit.export(model, tmp_path / "pets", check=False)
    raws = list(pictures([(9, 30), (64, 50), (8, 8)]))
    compare(program, model, path, "image_bytes", raws, invalid=[b"x"])


def test_a_text_model_is_served_from_c(program, tmp_path):
    source = write_text_encoder(tmp_path / "encoder" / "1")
    model = with_random_head(tlkit.text_classifier(source, ["good", "bad", "odd"]))
    path = tlkit.export(model, tmp_path / "films", check=False)
    raws = [b"good film", b"the bad films!", b"", b"\xff good", "é".encode()]
    libraries = c_client.text_libraries()
    compare(program, model, path, "text", raws, libraries=libraries)


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("name", ["resnet50", "minilm"])
def test_real_encoders_are_served_from_c(program, tmp_path, name):
    source = tlkit.samples.encoder(name, verbose=0)
    if name == "minilm":
        model = with_random_head(tlkit.text_classifier(source, ["a", "b", "c"]))
        raws = [b"Oil prices rose on Monday.", b"", b"a film " * 300]
        kwargs = {"libraries": c_client.text_libraries()}
    else:
        model = tlkit.image_classifier(source, ["a", "b", "c"], image_size=96)
        raws, kwargs = list(pictures([(96, 96), (300, 200), (50, 400)])), {}
        dense = with_random_head(model).get_layer("head").dense
        dense.kernel.assign(dense.kernel / 10)
    # The export also compares predictions in a process without tlkit.
    path = tlkit.export(model, tmp_path / name, examples=raws)
    field = "text" if name == "minilm" else "image_bytes"
    assert compare(program, model, path, field, raws, 1e-5, **kwargs) <= 1e-5
