"""Training with cached activations has the same result as without a cache."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import PIECES
from tests.training.two_devices import result_of, start
from tlkit import models
from tlkit.training import Phase, fit
from tlkit.training.activations.cached_activations import CachedActivations
from tlkit.training.arguments import feed_options
from tlkit.training.data_arguments import DataArguments, make_feeds
from tlkit.training.plans.cache_plan import ActivationCache
from tlkit.training.plans.plan import make_plan
from tlkit.training.plans.schedules import check_schedule

LABELS = ["a", "b", "c"]
WORDS = ["good", "bad", "film", "films", "the", "!"]


def image_model(encoder, **options):
    model = tlkit.image_classifier(encoder, LABELS, image_size=8, **options)
    return with_same_head(model)


def text_model(encoder, **options):
    return with_same_head(tlkit.text_classifier(encoder, LABELS, **options))


def with_same_head(model):
    kernel = model.get_layer("head").dense.kernel
    random = np.random.default_rng(5)
    kernel.assign(random.normal(size=kernel.shape) / 3)
    return model


@pytest.fixture(scope="module")
def photos():
    return made_photos()


def made_photos():
    random = np.random.default_rng(0)
    y = np.arange(23) % 3
    return random.uniform(0, 255, (23, 8, 8, 3)).astype("uint8"), y


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(1)
    x = [" ".join(random.choice(WORDS, random.integers(1, 15))) for _ in range(23)]
    return x, np.arange(23) % 3


def train(model, data, schedule, *, cache, **options):
    x, y = data
    defaults = {"batch_size": 4, "verbose": 0}
    if y is not None:
        defaults["validation_data"] = (x[:7], y[:7])
    report = fit(model, x, y, schedule=schedule, cache=cache, **defaults | options)
    return model.get_weights(), report


def assert_same(one, other, tolerance=1e-5):
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert list(one[1].history) == list(other[1].history)
    for name, values in one[1].history.items():
        np.testing.assert_allclose(
            values, other[1].history[name], rtol=tolerance, atol=tolerance
        )
    confusions = [
        [evaluation.confusion for evaluation in run[1].evaluations.values()]
        for run in (one, other)
    ]
    assert confusions[0] == confusions[1]


def phases(*trained, **options):
    epochs = options.pop("epochs", 2)
    options = {"epochs": epochs, "learning_rate": 1e-2, "decay": "constant"} | options
    return [Phase(one, **options) for one in trained]


def kept(report_or_plan):
    return [p.kept and (p.kept.name, p.kept.where) for p in report_or_plan.phases]


class Counted:
    """Examples that count how often they are read."""

    def __init__(self, x, y):
        self.reads = 0

        def count(n):
            self.reads += 1
            return n

        def one(n, raw, label):
            n = tf.numpy_function(count, [n], tf.int64)
            with tf.control_dependencies([n]):
                return tf.identity(raw), label

        parts = (x, np.asarray(y, np.int32))
        dataset = tf.data.Dataset.from_tensor_slices(parts).enumerate()
        self.dataset = dataset.map(lambda n, pair: one(n, *pair))


# === The same with and without ===


def test_images_have_the_same_result_as_without(image_encoder, photos):
    schedule = phases("head", 1, 2)
    plan = tlkit.plan(
        image_model(image_encoder), schedule, examples=23, batch_size=4, cache="memory"
    )
    assert kept(plan) == [("features", "memory"), ("stage1", "memory"), None]
    models = [image_model(image_encoder, dropout=0.3) for _ in range(2)]
    found, plain = (
        train(model, photos, schedule[:2], cache=cache)
        for model, cache in zip(models, ("memory", False), strict=True)
    )
    assert_same(found, plain)
    inputs = photos[0].astype("float32")
    one, other = (model.predict(inputs, verbose=0) for model in models)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_texts_have_the_same_result_as_without(text_encoder, texts, tmp_path):
    schedule = phases("head", 2, dropout=True)
    cache = ActivationCache("disk", directory=tmp_path)
    model = text_model(text_encoder)
    plan = tlkit.plan(model, schedule, examples=23, batch_size=4, cache=cache)
    names = ["features", "embeddings"]
    assert kept(plan) == [(name, "disk") for name in names]
    found, plain = (
        train(text_model(text_encoder, dropout=0.3), texts, schedule, cache=cache)
        for cache in (cache, False)
    )
    assert_same(found, plain)
    # Two sets of the training data, and of the validation data.
    assert len(list(tmp_path.glob("*/index.json"))) == 4


def test_what_else_fit_takes(image_encoder, photos):
    found, plain = (
        train(
            image_model(image_encoder),
            photos,
            phases(1, batch_norm="train"),
            cache=cache,
            class_weight={"a": 2.0, 1: 0.25},
            gradient_accumulation_steps=3,
            ema=0.9,
        )
        for cache in ("memory", False)
    )
    assert_same(found, plain, 1e-4)


def test_weights_of_examples(image_encoder, photos):
    x, y = photos
    weights = np.linspace(0, 3, 23).astype("float32")
    split = tf.data.Dataset.from_tensor_slices((x, y.astype("int32"), weights))
    found, plain = (
        train(
            image_model(image_encoder),
            (split, None),
            phases("head"),
            cache=cache,
            validation_data=(x[:7], y[:7], weights[:7]),
        )
        for cache in ("memory", False)
    )
    assert_same(found, plain)


@pytest.mark.long
def test_xla_compiles_with_cached_activations(text_encoder, texts):
    # Compiled both times: XLA draws other numbers for dropout.
    found, plain = (
        train(
            text_model(text_encoder),
            texts,
            phases(1),
            cache=cache,
            jit_compile=True,
        )
        for cache in ("memory", False)
    )
    assert_same(found, plain, 1e-4)


MIRRORED = """
import pathlib
import numpy as np
from tests.training.activations import test_cached_activations as here
x, y = here.made_photos()
model = here.image_model(pathlib.Path("FOLDER"), dropout=0.0)
weights, report = here.train(
    model, (x, y), here.phases("head", 1), cache="memory", strategy="mirrored"
)
print(json.dumps([[w.tolist() for w in weights], report.history, report.plan]))
"""


def test_two_replicas_end_where_one_device_does(image_encoder, photos):
    job = start(MIRRORED.replace("FOLDER", str(image_encoder)))
    weights, report = train(
        image_model(image_encoder, dropout=0.0), photos, phases("head", 1), cache=False
    )
    found, history, plan = result_of(job)
    assert "stage1, 6 kB in memory" in plan
    for one, other in zip(found, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for name, values in report.history.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, atol=1e-5)


class StopAt(keras.callbacks.Callback):
    """Breaks off in the middle of an epoch."""

    def __init__(self, updates):
        super().__init__()
        self.left = updates

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise RuntimeError("stopped")

    def get_state(self):  # not of the run: each has a number of its own
        return {}

    def set_state(self, state):
        pass


def test_a_run_is_resumed_in_the_middle(image_encoder, photos, tmp_path):
    def run(cache, stop_at, **options):
        model = image_model(image_encoder, dropout=0.3)
        callbacks = [StopAt(stop_at)]
        return train(
            model, photos, phases(1), cache=cache, callbacks=callbacks, **options
        )

    expected = run("memory", 0)
    # 12 updates, six in an epoch.
    options = {"directory": tmp_path / "run", "checkpoints": tlkit.Checkpoints(steps=2)}
    disk = ActivationCache("disk", directory=tmp_path / "kept")
    with pytest.raises(RuntimeError, match="stopped"):
        run(disk, 8, **options)
    found = run(disk, 0, resume=True, **options)
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[1].history == expected[1].history


# === When it is computed, and when not ===


def test_blocks_that_were_trained_are_recomputed(image_encoder, photos):
    schedule = phases("head", "all", "head", learning_rate=3e-2)
    data, plain_data = Counted(*photos), Counted(*photos)
    found, plain = (
        train(image_model(image_encoder), (d.dataset, None), schedule, cache=cache)
        for d, cache in ((data, "memory"), (plain_data, False))
    )
    assert_same(found, plain, 1e-4)
    # Features; epochs of all; features.
    assert data.reads == 23 + 2 * 23 + 23
    assert plain_data.reads == 6 * 23


def test_averages_of_blocks_that_are_frozen_again(image_encoder, photos, capsys):
    schedule = phases("all", "head", learning_rate=3e-2)
    found, plain = (
        train(
            image_model(image_encoder),
            photos,
            schedule,
            cache=cache,
            ema=0.99,
            verbose=1,
        )
        for cache in ("memory", False)
    )
    assert_same(found, plain, 1e-4)
    said = capsys.readouterr().err
    assert said.count("Nothing is cached at features in this phase") == 1


def test_a_dataset_of_ones_own_is_read_in_every_epoch(image_encoder, photos):
    data = Counted(photos[0] / np.float32(255), photos[1])
    _, report = train(
        image_model(image_encoder),
        (data.dataset.batch(4), None),
        phases("head", epochs=3),
        cache="memory",
    )
    assert data.reads == 3 * 23
    assert "features" not in report.plan


def test_of_an_encoder_without_cuts_there_are_features(photos):
    inputs = keras.Input((8, 8, 3))
    inner = keras.Model(
        inputs, keras.layers.Conv2D(5, 3, 2, name="stage1_conv")(inputs), name="inner"
    )
    random = np.random.default_rng(1)
    values = [random.normal(size=w.shape) / 3 for w in inner.get_weights()]

    def model():
        inner.set_weights(values)
        return with_same_head(tlkit.image_classifier(tlkit.load_encoder(inner), LABELS))

    plan = tlkit.plan(model(), phases("head", "all"), examples=23, cache="memory")
    assert kept(plan) == [("features", "memory"), None]
    found, plain = (
        train(model(), photos, phases("head"), cache=cache)
        for cache in ("memory", False)
    )
    assert_same(found, plain)


# === Padding, rounding ===


class Averaging(tf.Module):
    """An encoder in which padding counts: each token sees the mean of all."""

    def __init__(self, vocabulary):
        super().__init__()
        random = np.random.default_rng(2)
        self.vocab_file = tf.saved_model.Asset(str(vocabulary))
        self.do_lower_case = tf.Variable(True, trainable=False, dtype=tf.bool)
        shapes = {"word_embeddings/embeddings": (10, 8)}
        shapes |= {f"transformer/layer_{k}/kernel": (8, 8) for k in (0, 1)}
        self.variables_ = {
            name: tf.Variable(random.normal(size=shape).astype("float32"), name=name)
            for name, shape in shapes.items()
        }

    @tf.function
    def __call__(self, inputs, training=False):
        table = self.variables_["word_embeddings/embeddings"]
        x = tf.nn.embedding_lookup(table, inputs["input_word_ids"])
        kinds = inputs["input_type_ids"] + 0 * inputs["input_mask"]
        x += tf.cast(kinds, tf.float32)[..., tf.newaxis]
        for k in (0, 1):
            mean = tf.reduce_mean(x, axis=1, keepdims=True)
            x += tf.tanh((x + mean) @ self.variables_[f"transformer/layer_{k}/kernel"])
        return {"pooled_output": x[:, 0], "default": x[:, 0], "sequence_output": x}


@pytest.fixture(scope="module")
def averaging(tmp_path_factory):
    folder = tmp_path_factory.mktemp("averaging")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    module = Averaging(folder / "vocab.txt")
    names = ("input_word_ids", "input_mask", "input_type_ids")
    specs = {name: tf.TensorSpec((None, None), tf.int32) for name in names}
    for training in (False, True):
        module.__call__.get_concrete_function(specs, training=training)
    tf.saved_model.save(module, str(folder / "1"))
    return folder / "1"


@pytest.mark.parametrize("long", [3, 6])
def test_if_padding_matters_nothing_is_cached(averaging, capsys, long):
    """Also where the first batch, of the longest, has no padding."""
    words = ["the film films good bad ! " * 20] * long + ["good !", "bad", "the film"]
    data = words, np.arange(len(words)) % 3
    model = text_model(averaging, length=80)
    for trained, name in (("head", "features"), (1, "layer_0")):
        activations = activations_for(model, data, phases(trained))
        part, feeds = activations.part_and_feeds(0)
        assert part is model and feeds == activations.feeds
        said = capsys.readouterr().err
        assert f"Nothing is cached at {name}" in said and "padding" in said


def test_texts_of_one_length_have_no_padding(averaging, capsys):
    data = ["the film", "good !", "bad !", "films !", "the !"], [0, 1, 2, 0, 1]
    model = text_model(averaging, length=16)
    part, _ = activations_for(model, data, phases(1)).part_and_feeds(0)
    assert part is not model


def large_model(encoder):
    """A classifier with activations of millions behind its first stage."""
    model = image_model(encoder)
    for variable in model.weights:
        if "stage1" in variable.path and variable.path.endswith("kernel"):
            variable.assign(variable * 1e6)
        if "stage2" in variable.path and variable.path.endswith("kernel"):
            variable.assign(variable / 1e6)
    return model


def test_what_does_not_fit_in_float16_leaves_what_does(image_encoder, photos, capsys):
    model = large_model(image_encoder)
    activations = activations_for(
        model, photos, phases("head", 1, "head"), dtype="float16"
    )
    part, (features, validation) = activations.part_and_feeds(0)
    assert part is not model and validation is None
    inputs, labels, _ = next(iter(features.batches(None)))
    right = models.split(model)[0](photos[0][:4].astype("float32"))
    np.testing.assert_allclose(inputs, right, rtol=2e-3, atol=1e-5)
    assert inputs.dtype == tf.float32 and labels.numpy().tolist() == [0, 1, 2, 0]
    said = capsys.readouterr().err
    assert "Nothing is cached at stage1" in said
    assert "do not fit in float16" in said and "features" not in said.split("cached")[1]
    assert activations.part_and_feeds(1) == (model, activations.feeds)
    assert "Nothing" not in capsys.readouterr().err  # it is known by now
    assert activations.part_and_feeds(2)[1][0] is not activations.feeds[0]


def test_float16_takes_half_the_memory(image_encoder, photos):
    model = image_model(image_encoder)
    sizes, values = {}, {}
    for dtype in ("float32", "float16"):
        activations = activations_for(model, photos, phases(1), dtype=dtype)
        sizes[dtype] = activations.plan.phases[0].kept.size
        part, (feed, _) = activations.part_and_feeds(0)
        states = [inputs for inputs, *_ in feed.batches(0)]
        values[dtype] = np.concatenate([part(state) for state in states])
        assert {state["cut"].dtype for state in states} == {tf.float32}
    assert sizes == {"float32": 23 * 64 * 4, "float16": 23 * 64 * 2}
    np.testing.assert_allclose(values["float16"], values["float32"], atol=2e-3)
    assert np.abs(values["float16"] - values["float32"]).max() > 0


def test_too_little_memory_is_no_reason_to_stop(image_encoder, photos, capsys):
    activations = activations_for(image_model(image_encoder), photos, phases("head"))
    activations.feeds[0].examples = 2**58
    part, _ = activations.part_and_feeds(0)
    assert part is activations.run.model
    assert "Nothing is cached at features" in capsys.readouterr().err


def activations_for(model, data, schedule, **options):
    how = feed_options(model, batch_size=4)
    feeds = make_feeds(model, DataArguments(*data), how)
    cache = ActivationCache(**{"where": "memory"} | options)
    plan = make_plan(
        model,
        check_schedule(schedule),
        updates=feeds[0].steps,
        cache=cache,
        examples=feeds[0].examples,
    )
    averages = types.SimpleNamespace(by_id={})
    run = types.SimpleNamespace(model=model, verbose=1, averages=averages)
    return CachedActivations(run, plan, feeds, cache)
