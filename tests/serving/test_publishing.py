"""Published encoders are fine-tuned by tf_keras, by plain TensorFlow and by tlkit."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests import forked
from tests.encoders.compare import assert_close, gradients_of
from tests.encoders.forms import FORMS, write_swish_without
from tests.serving.real_models import REAL
from tests.tensorflow_hub import import_tensorflow_hub
from tests.tiny import PIECES, write_image_encoder, write_text_encoder
from tlkit import models
from tlkit.encoders.block_map import BLOCKS_FILE
from tlkit.encoders.saved_model.saved_model_reader import read_saved_model
from tlkit.errors import ExportError
from tlkit.serving import versions
from tlkit.serving.publishing import publish
from tlkit.sources.catalog.cards import read_card

TEXTS = ["good film", "the bad films!", ""]

# For each folder: calls it both ways, says what it gives and what moves.
USE = """
import json, sys
import numpy as np
import tensorflow as tf
answers = []
for folder, given in zip(sys.argv[1::2], sys.argv[2::2]):
    module = tf.saved_model.load(folder)
    inputs = dict(np.load(given))
    inputs = inputs["x"] if "x" in inputs else inputs
    inputs = tf.nest.map_structure(tf.constant, inputs)
    before = [v.numpy() for v in module.variables]
    plain = module(inputs)
    still = [v.numpy() for v in module.variables]
    with tf.GradientTape() as tape:
        outputs = module(inputs, training=True)
        loss = sum(tf.reduce_sum(x ** 2) for x in tf.nest.flatten(outputs))
    trainable = module.trainable_variables
    gradients = tape.gradient(loss, trainable)
    answers.append({
        "plain": [x.numpy().tolist() for x in tf.nest.flatten(plain)],
        "still": all(np.array_equal(a, b) for a, b in zip(before, still)),
        "moved": [
            v.name for v, b in zip(module.variables, before)
            if not np.array_equal(v.numpy(), b)
        ],
        "training": [x.numpy().tolist() for x in tf.nest.flatten(outputs)],
        "variables": [v.name for v in module.variables],
        "trainable": [v.name for v in trainable],
        "gradients": [g is not None for g in gradients],
        "losses": [float(loss()) for loss in module.regularization_losses],
    })
print(json.dumps({"answers": answers, "tlkit": "tlkit" in sys.modules}))
"""


def use(*pairs, folder):
    """What a process that knows nothing of tlkit gets out of published encoders."""
    arguments = []
    for i, (path, inputs) in enumerate(pairs):
        given = inputs if isinstance(inputs, dict) else {"x": inputs}
        np.savez(folder / f"{i}.npz", **{k: np.asarray(x) for k, x in given.items()})
        arguments += [str(path), str(folder / f"{i}.npz")]
    done = forked.run(
        [sys.executable, "-c", USE, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tlkit"] is False
    return found["answers"]


def pictures(count, seed=0):
    """Pictures of 8 by 8 pixels, bright or dark, and which they are."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    shade = 60 + 100 * labels[:, None, None, None]
    x = random.uniform(0, 90, (count, 8, 8, 3)) + shade
    return x.astype("float32"), labels.astype("int32")


@pytest.fixture(scope="module")
def image_source(tmp_path_factory):
    return write_image_encoder(tmp_path_factory.mktemp("images") / "tiny" / "1")


@pytest.fixture(scope="module")
def text_source(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("texts") / "tiny" / "1")


def fine_tuned(source):
    """An encoder whose every number is another than in its source."""
    encoder = tlkit.load_encoder(source)
    random = np.random.default_rng(3)
    for variable in encoder.weights:
        if "float" in variable.dtype:
            move = random.uniform(0.1, 0.3, variable.shape)
            variable.assign(variable.numpy() + move.astype("float32"))
    return encoder


@pytest.fixture(scope="module")
def image_model(image_source):
    encoder = fine_tuned(image_source)
    model = tlkit.image_classifier(encoder, ["dark", "bright"], image_size=8)
    tlkit.freeze(model, train=1, batch_norm="frozen")
    return model


@pytest.fixture(scope="module")
def published_images(image_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "pictures"
    return publish_unchanged(image_model, folder)


@pytest.fixture(scope="module")
def text_encoder(text_source):
    encoder = fine_tuned(text_source)
    tlkit.freeze(encoder, train=1, batch_norm="train", dropout=False)
    return encoder


@pytest.fixture(scope="module")
def published_texts(text_encoder, tmp_path_factory):
    model = tlkit.text_classifier(text_encoder, ["good", "bad"], length=6)
    folder = tmp_path_factory.mktemp("published") / "texts"
    return publish_unchanged(model, folder)


def publish_unchanged(model, folder):
    """Publishes the encoder of a model, which stays as it was."""
    encoder = model.get_layer("encoder")
    before = state_of(encoder)
    path = publish(model, folder, verbose=0)
    assert state_of(encoder) == before
    return path


def names_of(encoder):
    return [(b.name, [part.name for part in b.parts]) for b in encoder.blocks]


def state_of(encoder):
    values = [(v.path, v.trainable, v.numpy().tolist()) for v in encoder.variables]
    return values, encoder.batch_norm, encoder.dropout, encoder.trainable


# === By others ===


def test_plain_tensorflow_calls_both_ways(
    image_model, published_images, text_encoder, published_texts, tmp_path
):
    images = image_model.get_layer("encoder")
    x, _ = pictures(6)
    x = x / 255
    ids = models.text.WordPiecePreprocessor(
        tuple(PIECES), True, models.text.Packing(6)
    )(tf.constant(TEXTS))
    seen, read = use((published_images, x), (published_texts, ids), folder=tmp_path)

    np.testing.assert_allclose(seen["plain"][0], images(x), rtol=1e-6, atol=1e-6)
    expected = tf.nest.flatten(text_encoder(ids))
    for one, other in zip(read["plain"], expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)

    # What is frozen in the model is as learnable as the rest.
    assert len(seen["variables"]) == 10 and len(seen["trainable"]) == 6
    assert len(read["trainable"]) == 4
    assert all(seen["gradients"]) and all(read["gradients"])
    # Batch norms use the batch's statistics, and update their averages.
    assert seen["still"] and read["still"]
    assert seen["moved"] == [n for n in seen["variables"] if "moving" in n]
    assert len(seen["moved"]) == 4 and read["moved"] == []
    training = tlkit.load_encoder(published_images)
    tlkit.freeze(training, train="all", batch_norm="train")
    found = training(x, training=True)
    np.testing.assert_allclose(seen["training"][0], found, rtol=1e-5, atol=1e-6)
    assert not np.allclose(seen["training"][0], seen["plain"][0], atol=1e-3)
    # Dropout is on.
    assert not np.allclose(read["training"][-1], read["plain"][-1], atol=1e-3)


def test_tf_keras_and_tlkit_fine_tune_it(published_images, image_model):
    hub = import_tensorflow_hub()
    import tf_keras

    x, y = pictures(256)
    layer = hub.KerasLayer(str(published_images), trainable=True)
    model = tf_keras.Sequential([layer, tf_keras.layers.Dense(2)])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(1e-2), loss)
    before = {v.name: v.numpy() for v in layer.variables}
    first = model.evaluate(x / 255, y, verbose=0)
    model.fit(x / 255, y, batch_size=8, epochs=1, verbose=0)
    assert model.evaluate(x / 255, y, verbose=0) < 0.7 * first
    moved = [v.name for v in layer.variables if np.any(v.numpy() != before[v.name])]
    assert moved == [v.name for v in layer.variables] and len(moved) == 10
    assert len(layer.trainable_variables) == 6

    again = tlkit.image_classifier(published_images, ["dark", "bright"], image_size=8)
    encoder = again.get_layer("encoder")
    assert names_of(encoder) == names_of(image_model.get_layer("encoder"))
    before = {v.path: v.numpy() for v in encoder.variables}
    splits = tlkit.data.arrays(x, y, labels=["dark", "bright"], test=0)
    phase = tlkit.Phase("all", learning_rate=1e-2, batch_norm="train")
    first = tlkit.evaluate(again, splits.train, verbose=0).loss
    tlkit.fit(again, splits, schedule=phase, batch_size=8, verbose=0)
    assert tlkit.evaluate(again, splits.train, verbose=0).loss < 0.7 * first
    assert all(np.any(v.numpy() != before[v.path]) for v in encoder.variables)


def test_tf_keras_reads_texts_by_the_preprocessor_beside(published_texts, text_encoder):
    pytest.importorskip("tensorflow_text")  # registers the ops of the preprocessor

    hub = import_tensorflow_hub()
    import tf_keras

    beside = published_texts.parent.with_name("texts_preprocess") / "1"
    preprocess = hub.KerasLayer(str(beside))
    encoder = hub.KerasLayer(str(published_texts), trainable=True)
    texts = tf_keras.Input((), dtype=tf.string)
    outputs = encoder(preprocess(texts))["sequence_output"]
    model = tf_keras.Model(texts, outputs)
    packing = models.text.Packing(6, fixed_length=True)
    words = models.text.WordPiecePreprocessor(tuple(PIECES), True, packing)
    expected = words(tf.constant(TEXTS))
    assert_close(preprocess(tf.constant(TEXTS)), expected, 0)
    found = model(tf.constant(TEXTS))
    assert_close(found, text_encoder(expected)["sequence_output"], 1e-6)


# === By tlkit ===


def test_blocks_variables_and_vocabulary_come_back(
    published_texts, text_encoder, published_images, image_model
):
    again = tlkit.load_encoder(published_texts)
    assert names_of(again) == names_of(text_encoder)
    assert [b.name for b in again.blocks][:2] == ["embeddings", "layer_0"]
    assert again.facts.vocabulary == tuple(PIECES)
    assert again.facts.lower_case is True
    for one, other in zip(again.weights, text_encoder.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one, other)
    card = read_card(published_images)
    assert (card.name, card.kind, card.pixels) == ("pictures", "image", "unit")
    assert (card.image_size, card.note) == (8, "fine-tuned with tlkit from tiny")
    assert tlkit.load_encoder(published_images).facts.image_size == 8


def test_the_block_map_names_the_variables(published_images):
    found = json.loads((published_images / BLOCKS_FILE).read_text())
    norms = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert found["blocks"] == [
        {
            "name": f"stage{k}",
            "variables": found["blocks"][k - 1]["variables"],
            "parts": [],
        }
        for k in (1, 2)
    ]
    for k in (1, 2):
        names = [f"stage{k}/conv/kernel", *(f"stage{k}/conv_bn/{n}" for n in norms)]
        assert sorted(found["blocks"][k - 1]["variables"]) == sorted(names)


def test_the_block_map_names_the_blocks(published_images, tmp_path):
    path = shutil.copytree(published_images, tmp_path / "1")
    written = json.loads((path / BLOCKS_FILE).read_text())

    def named(first, variables=None):
        changed = json.loads(json.dumps(written))
        changed["blocks"][0]["name"] = first
        if variables is not None:
            changed["blocks"][0]["variables"] = variables
        (path / BLOCKS_FILE).write_text(json.dumps(changed))
        return [block.name for block in tlkit.load_encoder(path).blocks]

    assert named("low") == ["low", "stage2"]
    # What makes no sense is not listened to.
    for name, variables in (("a/b", None), ("low", []), ("low", ["other"])):
        assert named(name, variables) == ["stage1", "stage2"]
    (path / BLOCKS_FILE).write_text("[")
    assert [b.name for b in tlkit.load_encoder(path).blocks] == ["stage1", "stage2"]


def test_names_stay_in_a_file(published_images, tmp_path):
    path = shutil.copytree(published_images, tmp_path / "1")
    text = (path / BLOCKS_FILE).read_text().replace('"stage1"', '"low"')
    (path / BLOCKS_FILE).write_text(text)
    model = tlkit.image_classifier(path, ["dark", "bright"], image_size=8)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").get_layer("encoder")
    assert [block.name for block in again.blocks] == ["low", "stage2"]


def test_weights_are_written_once(published_images, image_model):
    reader = tf.train.load_checkpoint(str(published_images / "variables/variables"))
    shapes = reader.get_variable_to_shape_map().values()
    written = sum(int(np.prod(shape)) for shape in shapes if shape)
    encoder = image_model.get_layer("encoder")
    assert written == sum(block.parameters for block in encoder.blocks)


def test_what_is_published_can_be_published_again(published_texts, tmp_path):
    encoder = tlkit.load_encoder(published_texts)
    path = publish(encoder, tmp_path / "second", verbose=0)
    second = tlkit.load_encoder(path)
    assert names_of(second) == names_of(encoder)
    assert second.facts.vocabulary == tuple(PIECES)
    ids = {
        name: tf.constant([[2, 4, 3], [2, 5, 6]])
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    assert_close(second(ids), encoder(ids), 1e-6)
    assert read_card(path).note == "fine-tuned with tlkit from texts"


def test_a_model_that_took_one_output_gives_that_by_its_name(text_source, tmp_path):
    model = tlkit.text_classifier(text_source, ["good", "bad"], length=6)
    path = publish(model, tmp_path / "one", verbose=0)
    again = tlkit.text_classifier(path, ["good", "bad"], length=6)
    found = read_saved_model(path)
    assert list(found.outputs) == ["sequence_output"]
    names = [variable.name for variable in found.module.variables]
    assert len(names) == 3 and not any("pooler" in name for name in names)
    encoders = [one.get_layer("encoder") for one in (model, again)]
    assert names_of(encoders[0]) == names_of(encoders[1])
    dense = model.get_layer("head").dense
    for one in (model, again):
        one.get_layer("head").dense.kernel.assign(np.ones(dense.kernel.shape))
    inputs = models.preprocessing(model).batch(tf.constant(TEXTS))
    np.testing.assert_allclose(again(inputs), model(inputs), rtol=1e-6, atol=1e-6)


# === Any form ===


@pytest.mark.parametrize("name", FORMS)
def test_any_form_is_published(name, written, tmp_path):
    form, encoder = FORMS[name], tlkit.load_encoder(written(name))
    tlkit.freeze(encoder, train="head")
    path = publish(encoder, tmp_path / name, verbose=0)
    found, original = read_saved_model(path), read_saved_model(written(name))
    inputs = form.examples()
    assert_close(found.module(inputs), encoder(inputs), 1e-6)
    again = tlkit.load_encoder(path)
    assert again.opened is encoder.opened
    assert names_of(again) == names_of(encoder)
    learnable = [
        len([v for b in e.blocks for v in b.learnable]) for e in (again, encoder)
    ]
    assert learnable[0] == learnable[1] > 0
    assert len(found.losses) == len(original.losses)
    for one, other in zip(found.losses, original.losses, strict=True):
        np.testing.assert_allclose(one(), other(), rtol=1e-6)
    if form.random:
        return
    by_name = [
        {v.name: v for i, v in enumerate(r.variables) if i in r.learnable}
        for r in (found, original)
    ]
    if len(by_name[0]) < learnable[0]:
        return  # names that say nothing, and tell nothing apart
    names = sorted(by_name[0])
    results = [
        gradients_of(
            lambda r=r: r.endpoints[True](inputs), [by_name[i][n] for n in names]
        )
        for i, r in enumerate([found, original])
    ]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_that_were_lost_stay_lost(tmp_path):
    write_swish_without(tmp_path / "swish")
    path = publish(tlkit.load_encoder(tmp_path / "swish"), tmp_path / "a", verbose=0)
    inputs = FORMS["swish"].examples()
    module = tf.saved_model.load(str(path))
    assert module(inputs).shape == (4, 6)
    with pytest.raises(LookupError):
        gradients_of(lambda: module(inputs, training=True), module.trainable_variables)
    path = publish(tlkit.load_encoder(path), tmp_path / "b", verbose=0)
    assert tlkit.inspect(path, verbose=0).missing_gradients == 4


def test_a_keras_model_is_published(tmp_path):
    layers = keras.layers
    inputs = x = keras.Input((8, 8, 3))
    for block in (1, 2):
        x = layers.Conv2D(4, 3, name=f"block{block}_conv", kernel_regularizer="l2")(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.Activation("silu", name=f"block{block}_act")(x)
        x = layers.Dropout(0.5, name=f"block{block}_drop")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x), name="small")
    encoder = tlkit.load_encoder(model)
    tlkit.freeze(encoder, train=1, batch_norm="frozen")
    model.layers[1].trainable = False  # as a user may do
    before = state_of(encoder), [layer.trainable for layer in model.layers]
    path = publish(encoder, tmp_path / "small", verbose=0)
    assert (state_of(encoder), [layer.trainable for layer in model.layers]) == before

    (answer,) = use((path, pictures(4)[0] / 255), folder=tmp_path)
    x = pictures(4)[0] / 255
    np.testing.assert_allclose(answer["plain"][0], encoder(x), rtol=1e-6, atol=1e-6)
    assert len(answer["trainable"]) == 8 and all(answer["gradients"])
    moved = [name for name in answer["moved"] if "seed" not in name]
    assert moved == [n for n in answer["variables"] if "moving" in n]
    assert len(moved) == 4
    kernels = [v for v in model.weights if v.path.endswith("kernel")]
    expected = [float(v.regularizer(v)) for v in kernels]
    np.testing.assert_allclose(sorted(answer["losses"]), sorted(expected), rtol=1e-5)
    again = tlkit.load_encoder(path)
    assert [block.name for block in again.blocks] == ["block1", "block2"]
    assert [block.batch_norms for block in again.blocks] == [1, 1]


def test_a_keras_model_with_a_loop_is_published_as_a_whole(tmp_path):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, keras.layers.LSTM(4, name="lstm")(inputs))
    encoder = tlkit.load_encoder(model)
    path = publish(encoder, tmp_path / "loop", verbose=0)
    again = tlkit.load_encoder(path)
    assert not again.opened and len(again.trainable_variables) == 3
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(again(x), encoder(x), rtol=1e-6, atol=1e-6)


def test_a_keras_model_of_unknown_inputs_is_refused(tmp_path):
    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = Small()
    model(np.ones((2, 2)))
    with pytest.raises(ExportError, match="has no known inputs"):
        publish(
            tlkit.encoders.native_encoder.NativeEncoder(model),
            tmp_path / "a",
            verbose=0,
        )


# === Preprocessors ===


def test_the_preprocessor_packs_pairs_and_other_lengths(published_texts):
    beside = published_texts.parent.with_name("texts_preprocess") / "1"
    words = models.text.WordPiecePreprocessor
    for length in (8, 12):
        packing = models.text.Packing(length, pairs=True)
        saved = models.text.SavedPreprocessor(str(beside), packing)
        pairs = tf.constant([["good film", "the bad films!"], ["", "the"]])
        found, expected = saved(pairs), words(tuple(PIECES), True, packing)(pairs)
        assert saved.packs
        for name, rows in expected.items():
            width = rows.shape[1]
            np.testing.assert_array_equal(found[name][:, :width], rows)


def test_a_preprocessor_that_was_given_is_copied_beside(
    text_source, published_texts, tmp_path
):
    beside = published_texts.parent.with_name("texts_preprocess")
    own = tmp_path / "own"
    shutil.copytree(beside, own)
    model = tlkit.text_classifier(
        text_source, ["good", "bad"], length=6, preprocessor=own
    )
    path = publish(model, tmp_path / "shelf" / "texts", verbose=0)
    shutil.rmtree(own)
    shutil.move(tmp_path / "shelf", tmp_path / "elsewhere")
    path = tmp_path / "elsewhere" / "texts"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "texts",
        "texts_preprocess",
    ]
    again = tlkit.text_classifier(path, ["good", "bad"], length=6)
    assert again.get_layer("encoder").facts.preprocessor == str(
        (tmp_path / "elsewhere" / "texts_preprocess" / "1").resolve()
    )
    found = models.preprocessing(again).batch(tf.constant(TEXTS))
    assert found["input_word_ids"].shape == (3, 6)


# === Versions and mistakes ===


def test_versions_count_up_together(text_encoder, published_texts, tmp_path, capsys):
    folder, beside = tmp_path / "texts", tmp_path / "texts_preprocess"
    assert published_texts.name == "1"
    shutil.copytree(published_texts.parents[1], tmp_path, dirs_exist_ok=True)
    (beside / "4").mkdir()
    fifth = publish(text_encoder, folder)
    assert fifth == folder / "5"
    printed = capsys.readouterr().err
    assert f"Published tiny (4 blocks) in {fifth}" in printed
    assert str(beside / "5") in printed
    assert sorted(p.name for p in beside.iterdir()) == ["1", "4", "5"]
    assert sorted(p.name for p in folder.iterdir()) == ["1", "5"]


def test_what_is_there_is_left_alone(text_encoder, published_images, tmp_path):
    encoder = tlkit.load_encoder(published_images)
    with pytest.raises(ExportError, match=r"1 exists.*free one \(2\)"):
        publish(encoder, published_images.parent, version=1)
    beside = tmp_path / "texts_preprocess" / "2"
    beside.mkdir(parents=True)
    with pytest.raises(ExportError, match="texts_preprocess/2 exists"):
        publish(text_encoder, tmp_path / "texts", version=2)
    assert not (tmp_path / "texts").exists()
    with pytest.raises(ExportError, match="must be 1 or more"):
        publish(encoder, tmp_path, version=0)


def test_a_failure_leaves_nothing(text_encoder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"):
        publish(text_encoder, tmp_path / "file")

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(versions, "move_into_place", fail)
    with pytest.raises(KeyboardInterrupt):
        publish(text_encoder, tmp_path / "texts")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_model_without_an_encoder_is_refused(tmp_path):
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for other in (plain, "resnet50", None):
        with pytest.raises(ExportError, match="writes an encoder of tlkit.load_en"):
            publish(other, tmp_path / "plain")
    assert list(tmp_path.iterdir()) == []


# === Real encoders ===


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_encoders_are_fine_tuned_from_what_was_published(name, tmp_path):
    hub = import_tensorflow_hub()
    import tf_keras

    splits, model = REAL[name]()
    encoder = model.get_layer("encoder")
    phase = tlkit.Phase("all", learning_rate=3e-4, batch_norm="train")
    if name == "resnet50":  # its averages of batch norms must follow the data
        tlkit.fit(model, splits, schedule=phase, batch_size=16, verbose=0)
    else:
        for variable in encoder.trainable_variables:  # as if it had been trained
            variable.assign(variable * 1.01)
    path = publish(model, tmp_path / name, verbose=0)

    x, y = _inputs(model, splits.train)
    layer = hub.KerasLayer(str(path), trainable=True)
    key = "image" if name == "resnet50" else None
    given = {k: tf_keras.Input(v.shape[1:], dtype=v.dtype) for k, v in x.items()}
    outputs = layer(given[key] if key else given)
    if not key:
        outputs = tf.reduce_mean(outputs["sequence_output"], axis=1)
    other = tf_keras.Model(given, tf_keras.layers.Dense(2)(outputs))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    other.compile(tf_keras.optimizers.Adam(1e-4), loss)
    before = {v.name: v.numpy() for v in layer.variables}
    first = other.evaluate(x, y, batch_size=32, verbose=0)
    other.fit(x, y, batch_size=16, epochs=1, verbose=0)
    last = other.evaluate(x, y, batch_size=32, verbose=0)
    moved = [v.name for v in layer.variables if np.any(v.numpy() != before[v.name])]
    print(name, "tf_keras", first, last, len(moved), len(before))
    assert last < first
    assert any("moving_mean" in n for n in moved) == (name == "resnet50")

    build = tlkit.image_classifier if key else tlkit.text_classifier
    options = {"image_size": 64} if key else {"length": 32}
    again = build(path, model.get_layer("head").task, **options)
    fresh = again.get_layer("encoder")
    assert names_of(fresh) == names_of(encoder)
    statistics = [v.numpy() for v in fresh.non_trainable_variables]
    first = tlkit.evaluate(again, splits.train, verbose=0).loss
    report = tlkit.fit(again, splits, schedule=phase, batch_size=16, verbose=0)
    # Of the epoch: averages of batch norms are some dozens of steps behind.
    (last,) = report.history["loss"]
    print(name, "tlkit", first, last)
    assert last < first
    if key:
        pairs = zip(statistics, fresh.non_trainable_variables, strict=True)
        assert all(np.any(v.numpy() != before) for before, v in pairs)


def _inputs(model, examples):
    """What the encoder takes, of all examples, and their labels."""
    raws, labels = next(examples.batch(1000).as_numpy_iterator())
    preprocess = models.preprocessing(model, fixed_length=True)
    inputs = preprocess.batch(tf.constant(raws))
    if isinstance(inputs, dict):
        return {k: x.numpy() for k, x in inputs.items()}, labels
    return {"image": model.get_layer("pixels")(inputs).numpy()}, labels
