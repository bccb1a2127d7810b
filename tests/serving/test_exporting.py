"""Exports take raw examples and give labels in a process without tlkit."""

import functools
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.data.image_files import exif, saved, scene, with_exif
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.errors import DataError, ExportError
from tlkit.serving import predict_standalone
from tlkit.serving.export_examples import (
    ExportExamples,
    load_examples,
    save_examples,
    take_examples,
)

TEXTS = ["good film", "the bad films!", ""]
LABELS = ["Käse", "хлеб", "米饭"]  # class names may have any letters
ENCODED_LABELS = [label.encode() for label in LABELS]
REPORT = tlkit.reports.Report(history={"loss": [1.0, 0.5]}, seconds=2.0)


def serve(folder, signature="serving_default", **inputs):
    """Returns the response of a signature in a process without tlkit."""
    return predict_standalone(folder, {signature: inputs})[signature]


@functools.cache
def signatures_of(folder):
    return tf.saved_model.load(str(folder)).signatures


def here(folder, signature="serving_default", **inputs):
    """Returns the same from this process, which takes a second instead of six."""
    served = signatures_of(folder)[signature]
    answer = served(**{name: tf.constant(values) for name, values in inputs.items()})
    return {name: tensor.numpy() for name, tensor in answer.items()}


def with_random_head(model):
    dense = model.get_layer("head").dense
    random = np.random.default_rng(2).normal(size=dense.kernel.shape)
    dense.kernel.assign(random)
    return model


@pytest.fixture(scope="module")
def image_model(tmp_path_factory):
    source = write_image_encoder(tmp_path_factory.mktemp("images") / "1")
    model = tlkit.image_classifier(source, ["cat", "dog"], image_size=8)
    return with_random_head(model)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    source = write_text_encoder(tmp_path_factory.mktemp("texts") / "1")
    return with_random_head(tlkit.text_classifier(source, LABELS))


@pytest.fixture(scope="module")
def image_export(image_model, tmp_path_factory):
    """An export that many tests read, and none changes."""
    folder = tmp_path_factory.mktemp("exports") / "images"
    return tlkit.export(image_model, folder, check=False)


@pytest.fixture(scope="module")
def text_export(text_model, tmp_path_factory):
    """An export with a report, checked on three examples."""
    folder = tmp_path_factory.mktemp("exports") / "films"
    return tlkit.export(text_model, folder, examples=TEXTS, report=REPORT)


def expected(model, examples):
    inputs = models.preprocessing(model).batch(tf.constant(examples))
    return models.task_of(model).scores(model(inputs))


def check(answer, scores, labels):
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-5)
    np.testing.assert_allclose(answer["score"], scores.max(axis=1), atol=1e-5)
    order = np.argsort(-scores, axis=1, kind="stable")
    names = np.array(labels, dtype="S")
    assert answer["label"].tolist() == names[order[:, 0]].tolist()
    assert answer["labels"].tolist() == [names.tolist()] * len(scores)
    assert answer["top_labels"].tolist() == names[order].tolist()
    np.testing.assert_array_equal(
        answer["top_scores"], np.take_along_axis(answer["scores"], order, axis=1)
    )


def test_a_text_model_takes_raw_strings(text_model, text_export):
    assert text_export.parts[-2:] == ("films", "1")
    answer = serve(text_export, text=[text.encode() for text in TEXTS])
    check(answer, expected(text_model, TEXTS), ENCODED_LABELS)


def test_an_image_model_takes_encoded_images_of_any_size(image_model, image_export):
    random = np.random.default_rng(0)
    pictures = [
        tf.io.encode_png(random.integers(0, 256, (9, 30, 3)).astype(np.uint8)),
        tf.io.encode_jpeg(random.integers(0, 256, (64, 50, 3)).astype(np.uint8)),
        tf.io.encode_png(random.integers(0, 256, (8, 8, 1)).astype(np.uint8)),
    ]
    encoded = [picture.numpy() for picture in pictures]
    answer = serve(image_export, image_bytes=encoded)
    check(answer, expected(image_model, encoded), ["cat", "dog"])


def test_versions_count_up_and_are_not_replaced(text_model, text_export, tmp_path):
    shutil.copytree(text_export, tmp_path / "1")
    ninth = tlkit.export(text_model, tmp_path, check=False, version=9)
    before = (ninth / "saved_model.pb").read_bytes()
    with pytest.raises(ExportError, match=r"9 exists.*next free one \(10\)"):
        tlkit.export(text_model, tmp_path, check=False, version=9)
    assert (ninth / "saved_model.pb").read_bytes() == before
    tenth = tlkit.export(text_model, tmp_path, check=False, top=2)
    assert [p.name for p in (ninth, tenth)] == ["9", "10"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "10", "9"]
    notes = json.loads((tenth / "assets.extra" / "tlkit_export.json").read_text())
    assert notes["labels"] == LABELS
    assert here(tenth, text=TEXTS)["top_labels"].shape == (3, 2)


def test_weights_are_written_once(image_model, image_export):
    reader = tf.train.load_checkpoint(str(image_export / "variables" / "variables"))
    shapes = reader.get_variable_to_shape_map()
    written = sum(np.prod(s) for n, s in shapes.items() if "weights" in n)
    assert written == sum(np.prod(v.shape) for v in image_model.variables)
    others = [name for name in shapes if not name.startswith("weights/")]
    assert others == ["_CHECKPOINTABLE_OBJECT_GRAPH"]


def test_a_failing_export_leaves_nothing(text_model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        tlkit.export(text_model, tmp_path, check=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_directory_is_rejected(text_model, tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"):
        tlkit.export(text_model, place)
    assert place.read_text() == "mine"


def test_bad_versions_and_other_models_are_rejected(text_model, tmp_path):
    with pytest.raises(ExportError, match="must be 1 or more. Received: 0"):
        tlkit.export(text_model, tmp_path, check=False, version=0)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ExportError, match="models that tlkit built"):
        tlkit.export(other, tmp_path)
    assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_the_signatures_tensors_and_embed(image_model, image_export):
    random = np.random.default_rng(1)
    picture = tf.io.encode_png(random.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    encoded = [picture.numpy()]
    pixels = models.preprocessing(image_model).batch(tf.constant(encoded)).numpy()
    answer = here(image_export, "tensors", pixels=pixels)
    check(answer, expected(image_model, encoded), ["cat", "dog"])
    trunk, _ = models.split(image_model)
    found = here(image_export, "embed", image_bytes=encoded)
    np.testing.assert_allclose(found["embedding"], trunk(pixels), rtol=1e-5)


def test_tokens_by_name_are_the_tensors_of_a_text_model(text_model, text_export):
    inputs = models.preprocessing(text_model).batch(tf.constant(TEXTS))
    tokens = {name: tensor.numpy() for name, tensor in inputs.items()}
    answer = here(text_export, "tensors", **tokens)
    check(answer, expected(text_model, TEXTS), ENCODED_LABELS)


def test_an_invalid_image_does_not_affect_the_others(image_export):
    path = image_export
    picture = tf.io.encode_jpeg(np.full((30, 20, 3), 90, np.uint8)).numpy()
    bad = [b"", b"no picture", picture[: len(picture) // 2], b"\x89PNG\r\n\x1a\n" * 9]
    requests = [*bad[:2], picture, *bad[2:]]
    answer = here(path, image_bytes=requests)
    alone = here(path, image_bytes=[picture])
    assert answer["label"].tolist() == [b"", b"", alone["label"][0], b"", b""]
    np.testing.assert_array_equal(answer["scores"][2], alone["scores"][0])
    for name in ("score", "scores", "top_scores"):
        assert not answer[name][[0, 1, 3, 4]].any()
    assert not here(path, "embed", image_bytes=bad)["embedding"].any()


def test_an_image_has_the_same_scores_alone_and_in_a_batch(image_export):
    small = scene(20, 14)
    picture = saved(small, "JPEG")
    requests = [
        picture,
        with_exif(picture, exif(6)),
        *(saved(small, kind) for kind in ("PNG", "GIF", "WEBP", "BMP")),
        *(b"", b"no picture", picture[:-40], saved(small, "PNG")[:-40]),
        with_exif(picture, exif(6))[:-40],
    ]
    together = here(image_export, image_bytes=requests)
    assert together["label"][:6].all() and not together["label"][6:].any()
    for row, raw in enumerate(requests):
        alone = here(image_export, image_bytes=[raw])
        assert alone["label"].tolist() == together["label"][row : row + 1].tolist()
        np.testing.assert_allclose(alone["scores"][0], together["scores"][row], 1e-5)


def test_a_batch_of_none_has_an_answer_of_none(image_export, text_export):
    for path, name in ((image_export, "image_bytes"), (text_export, "text")):
        answer = here(path, **{name: np.zeros(0, np.bytes_)})
        assert answer["label"].shape == (0,)
        assert answer["scores"].shape[0] == 0


def test_odd_texts_have_answers(text_export):
    odd = [b"", b"\xff\xfe good \x80", b"\0", b"good " * 200_000, "👍".encode()]
    answer = here(text_export, text=[*odd, b"good film"])
    alone = here(text_export, text=[b"good film"])
    assert set(answer["label"].tolist()) <= set(ENCODED_LABELS)
    np.testing.assert_allclose(answer["scores"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(answer["scores"][-1], alone["scores"][0], atol=1e-6)


def test_a_number_of_top_labels_is_one_of_labels(text_model, tmp_path):
    for top in (0, 4):
        with pytest.raises(ExportError, match=f"from 1 to 3.*Received: {top}"):
            tlkit.export(text_model, tmp_path, top=top)


def test_the_extra_files_of_an_export(text_export):
    extra = text_export / "assets.extra"
    facts = json.loads((extra / "tlkit_export.json").read_text())
    assert facts["name"] == "films"
    assert facts["parity"]["examples"] == 3
    assert facts["parity"]["made"] is False
    assert facts["parity"]["largest_difference"] <= 1e-5
    assert tlkit.reports.Report.load(extra).history == REPORT.history
    card = (extra / "model_card.md").read_text()
    assert card.startswith("# films\n")
    assert ", ".join(LABELS) in card
    assert "3 given examples" in card


def test_examples_may_be_a_split_arrays_or_synthetic(image_model):
    pixels = np.arange(10 * 9 * 9 * 3).reshape(10, 9, 9, 3).astype(np.uint8)
    split = tf.data.Dataset.from_tensor_slices((pixels, np.arange(10) % 2))
    found = take_examples(image_model, split, 4)
    assert found.labels == (0, 1, 0, 1)
    for raw, array in zip(found.raws, pixels[[0, 3, 6, 9]], strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(raw), array)
    made = take_examples(image_model, None)
    assert made.synthetic
    assert len(made) == 8
    with pytest.raises(DataError, match="examples is empty"):
        take_examples(image_model, [])
    with pytest.raises(DataError, match="a split .* or several raw examples"):
        take_examples(image_model, "rose.jpg")


def test_examples_are_evenly_spaced(image_model, tmp_path):
    # As a folder's: one class after the other.
    pixels = np.repeat(np.arange(200, dtype=np.uint8), 27).reshape(200, 3, 3, 3)
    labels = np.arange(200) // 100
    dataset = tf.data.Dataset.from_tensor_slices((pixels, labels))
    folder = tlkit.data.arrays(pixels, labels, validation=0.5).validation
    for split, size in ((dataset, 200), (folder, 100)):
        found = take_examples(image_model, split, 20)
        assert len(found) == 20 and found.labels == (0,) * 10 + (1,) * 10
        whole = take_examples(image_model, split, size)
        assert set(found.raws) < set(whole.raws) and len(set(whole.raws)) == size
        fewer = whole.sample(4)
        assert fewer.labels == (0, 0, 1, 1)
        assert fewer.raws[0] == whole.raws[0] and fewer.raws[-1] == whole.raws[-1]
    ends = take_examples(image_model, [pixels[0], pixels[-1]])
    assert take_examples(image_model, list(pixels), 2).raws == ends.raws
    assert take_examples(image_model, dataset.take(3), 20).labels == (0, 0, 0)
    with pytest.raises(DataError, match="not batched"):
        take_examples(image_model, dataset.batch(4))


def test_a_failed_export_leaves_no_empty_folder(text_model, tmp_path, monkeypatch):
    folder = tmp_path / "new"
    for options in ({"version": 0}, {"lite": "int4", "examples": TEXTS}):
        with pytest.raises(ExportError):
            tlkit.export(text_model, folder, check=False, **options)
    assert not folder.exists()
    monkeypatch.setattr(tf.saved_model, "save", _full_disk)
    with pytest.raises(ExportError, match="cannot be written: no space"):
        tlkit.export(text_model, folder, check=False)
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(ExportError, match="cannot be written: no space"):
        tlkit.export(text_model, folder, check=False)
    assert list(folder.iterdir()) == []


def _full_disk(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(None, None, "no space left")


def test_examples_are_saved_in_a_file(tmp_path):
    for rows in (
        ExportExamples((b"a\0", b""), (1, 0)),
        ExportExamples(((b"a", b"b"), (b"", b"c"))),
    ):
        save_examples(rows, tmp_path / "rows")
        assert load_examples(tmp_path / "rows") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    whole = (tmp_path / "rows").read_bytes()
    (tmp_path / "rows").write_bytes(whole[:-3])
    with pytest.raises(DataError, match="cannot be read"):
        load_examples(tmp_path / "rows")


def test_keras_exports_what_tlkit_built(image_model, tmp_path):
    image_model.export(tmp_path, verbose=False)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    loaded = tf.saved_model.load(str(tmp_path))
    found = loaded.serve(pixels)
    np.testing.assert_allclose(found, image_model(pixels), rtol=1e-5)


def labelled(model, count):
    """Returns images with the labels that the model predicts for them."""
    random = np.random.default_rng(4)
    pixels = random.integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)
    names = models.task_of(model).labels
    labels = [names.index(found.label) for found in tlkit.predict(model, list(pixels))]
    return tf.data.Dataset.from_tensor_slices((pixels, labels))


def test_a_lite_model_is_written_with_its_loss_of_accuracy(image_model, tmp_path):
    split = labelled(image_model, 10)
    kwargs = {"check": False, "lite": "float16", "verbose": 0}
    path = tlkit.export(image_model, tmp_path, examples=split, **kwargs)
    extra = path / "assets.extra"
    small = json.loads((extra / "tlkit_export.json").read_text())["small"]
    assert small["rows"] == 10
    assert small["accuracy"] == 1.0
    assert small["accuracy_drop"] <= 0.01
    assert small["bytes"] == (extra / "model.tflite").stat().st_size
    assert "float16" in (extra / "model_card.md").read_text()


def test_a_lite_model_that_loses_too_much_leaves_nothing(image_model, tmp_path):
    split = labelled(image_model, 10)
    kwargs = {"check": False, "lite": "float16", "verbose": 0}
    with pytest.raises(ExportError, match="accuracy_drop=-0.5"):
        tlkit.export(
            image_model, tmp_path, examples=split, accuracy_drop=-0.5, **kwargs
        )
    with pytest.raises(ExportError, match="examples=splits.validation"):
        tlkit.export(image_model, tmp_path, **kwargs)
    with pytest.raises(ExportError, match="float16, int8. Received: 'int4'"):
        tlkit.export(image_model, tmp_path, examples=split, lite="int4")
    assert list(tmp_path.iterdir()) == []
