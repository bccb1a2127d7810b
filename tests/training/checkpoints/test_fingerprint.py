"""Differences between a job and the one that wrote a checkpoint are named."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests import forked
from tests.training.conftest import LABELS, make_plain_model
from tlkit import models
from tlkit.errors import TrainingError
from tlkit.training import Phase
from tlkit.training.checkpoints import checkpoint_files as checkpoints
from tlkit.training.checkpoints.fingerprint import check_same, differences, fingerprint
from tlkit.training.checkpoints.job_facts import model_facts
from tlkit.training.feeds.class_weighted_feed import weigh_classes
from tlkit.training.feeds.feed import Options
from tlkit.training.feeds.fit_inputs import make_feed


def facts(numbers, *, model=None, **changes):
    """The fingerprint of a small job, with changes to it."""
    x, y = changes.pop("data", numbers)
    options = Options(changes.setdefault("batch_size", 4), changes.get("seed", 0))
    feed = make_feed(x, y, changes.pop("sample_weight", None), options)
    job = {
        "phases": [Phase(epochs=2), Phase(epochs=3, learning_rate=1e-4)],
        "train": weigh_classes(feed, changes.get("class_weight"), options),
        "optimizer": keras.optimizers.AdamW(weight_decay=0.01),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "seed": 0,
        "gradient_accumulation_steps": 2,
    } | changes
    return fingerprint(model or make_plain_model(), **job)


@pytest.fixture(scope="module")
def saved(numbers):
    return facts(numbers)


def test_the_same_job_is_the_same(numbers, saved, tmp_path):
    keras.layers.Dense(3)  # so that Keras numbers names otherwise
    now = facts(numbers)
    assert saved == now
    # Nor does it matter what is trained at the moment, or what the weights are.
    model = make_plain_model(seed=8)
    model.trainable = False
    assert differences(saved, facts(numbers, model=model)) == []
    checkpoints.write(tmp_path, 1, {}, {"facts": saved}, keep=1)
    check_same(checkpoints.latest(tmp_path).state["facts"], now)
    check_same(json.loads(json.dumps(saved)), now)


def function_loss(labels, outputs):
    return tf.reduce_sum(outputs, axis=-1)


CHANGES = {
    "epochs": (
        {"phases": [Phase(epochs=2), Phase(epochs=5, learning_rate=1e-4)]},
        ["schedule: phase 2 had epochs=3, now 5"],
    ),
    "blocks": (
        {"phases": [Phase(["a*", "b"], epochs=2), Phase(epochs=3, learning_rate=1e-4)]},
        ["schedule: phase 1 had train='all', now ['a*', 'b']"],
    ),
    "phases": ({"phases": [Phase()]}, ["schedule: it had 2 phases, now 1"]),
    "seed": ({"seed": 1}, ["seed was 0, now 1"]),
    "optimizer": (
        {"optimizer": keras.optimizers.SGD()},
        ["optimizer was AdamW, now SGD"],
    ),
    "decay": (
        {"optimizer": keras.optimizers.AdamW(weight_decay=0.1)},
        ["optimizer had weight_decay=0.01, now 0.1"],
    ),
    "clipping": (
        {"optimizer": keras.optimizers.AdamW(weight_decay=0.01, global_clipnorm=1.0)},
        ["optimizer had global_clipnorm=None, now 1.0"],
    ),
    "rate, which the schedule sets": (
        {"optimizer": keras.optimizers.AdamW(0.5, weight_decay=0.01)},
        [],
    ),
    "loss": (
        {"loss": keras.losses.SparseCategoricalCrossentropy(ignore_class=0)},
        [
            "loss had from_logits=True, now False",
            "loss had ignore_class=None, now 0",
        ],
    ),
    "function": (
        {"loss": function_loss},
        ["loss was SparseCategoricalCrossentropy, now function_loss"],
    ),
    "class weights": (
        {"class_weight": {1: 2.0}},
        ["class_weight was {}, now {'1': 2.0}"],
    ),
    "accumulation": (
        {"gradient_accumulation_steps": 1},
        ["gradient_accumulation_steps was 2, now 1"],
    ),
    "batches": (
        {"batch_size": 5},
        ["data: batch size was 4, now 5"],
    ),
    "what another version says": ({"something_new": 3}, []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_named(name, numbers, saved):
    changes, said = CHANGES[name]
    assert differences(saved, facts(numbers, **changes)) == said


def model_of(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def test_another_model_is_named(numbers):
    def make(units=5, rate=0.1, activation="tanh", last=3):
        return model_of(
            keras.layers.Dense(units, activation=activation),
            keras.layers.Dropout(rate),
            keras.layers.Dense(last),
        )

    saved = facts(numbers, model=make())
    assert differences(saved, facts(numbers, model=make())) == []
    assert differences(saved, facts(numbers, model=make(rate=0.5))) == [
        "model: layer 2 (Dropout) had rate=0.1, now 0.5"
    ]
    assert differences(saved, facts(numbers, model=make(activation="relu"))) == [
        "model: layer 1 (Dense) had activation='tanh', now 'relu'"
    ]
    assert differences(saved, facts(numbers, model=make(last=4))) == [
        "model: sequential/dense_1/kernel was float32 [5, 3], now float32 [5, 4]",
        "model: sequential/dense_1/bias was float32 [3], now float32 [4]",
        "model: layer 3 (Dense) had units=3, now 4",
    ]
    less = model_of(keras.layers.Dense(3))
    assert differences(saved, facts(numbers, model=less)) == [
        "model: sequential/dense/kernel was float32 [4, 5], now float32 [4, 3]",
        "model: sequential/dense/bias was float32 [5], now float32 [3]",
        "model: sequential/dense_1/kernel was float32 [5, 3], now missing",
        "model: sequential/dense_1/bias was float32 [3], now missing",
        "model: it had 3 layers, now 1",
    ]
    half = model_of(
        keras.layers.Dense(5, activation="tanh", dtype="mixed_float16"),
        keras.layers.Dropout(0.1),
        keras.layers.Dense(3),
    )
    assert differences(saved, facts(numbers, model=half)) == [
        "model: layer 1 (Dense) had dtype='float32', now 'mixed_float16'"
    ]


def test_an_encoder_is_known_by_its_name_and_its_blocks(make_model, splits):
    def of(model):
        options = Options(6, preprocess=models.preprocessing(model))
        return fingerprint(
            model,
            [Phase()],
            make_feed(splits.train, None, None, options),
            optimizer=keras.optimizers.AdamW(),
            loss="mse",
            seed=0,
            batch_size=6,
        )

    saved = of(make_model())
    layers = saved["model"]["layers"]
    assert [layer["class"] for layer in layers] == ["Pixels", "OpenedEncoder", "Head"]
    assert layers[1]["blocks"] == ["stage1", "stage2"]
    assert layers[2]["task"]["labels"] == LABELS
    model = make_model()
    tlkit.freeze(model, train=1, batch_norm="train")
    assert of(model) == saved
    assert differences(saved, of(make_model(dropout=0.3))) == [
        "model: layer 3 (Head) had dropout=0.0, now 0.3"
    ]
    layers[1]["encoder"] = "resnet"
    (said,) = differences(saved, of(model))
    assert said.startswith("model: layer 2 (OpenedEncoder) had encoder='resnet', now '")


def test_other_data_is_named(numbers, saved):
    x, y = numbers

    def said(x, y, **changes):
        return differences(saved, facts(numbers, data=(x, y), **changes))

    assert said(x.copy(), y.copy()) == []
    assert said(x[:-1], y[:-1]) == ["data: examples was 11, now 10"]
    assert said(x, y.astype("int32")) == [
        "data: labels were int64 [None], now int32 [None]"
    ]
    wide = np.concatenate([x, x], axis=1)
    assert said(wide, y) == [
        "data: inputs were float32 [None, 4], now float32 [None, 8]"
    ]
    other = x.copy()
    other[0, 0] += 0.5
    assert said(other, y) == ["data: the inputs of some examples differ"]
    # What comes of another processor is not another picture.
    assert said(x * (1 + 1e-6), y) == []
    assert said(x[::-1].copy(), y[::-1]) == [
        "data: the inputs and labels of some examples differ"
    ]
    labels = y.copy()
    labels[0] = (labels[0] + 1) % 3
    assert said(x, labels) == ["data: the labels of some examples differ"]
    weights = np.ones(11, "float32")
    assert saved["data"]["content"][0]["weights"] == []
    weighed = facts(numbers, sample_weight=weights)
    weights[1] = 3
    assert differences(weighed, facts(numbers, sample_weight=weights)) == [
        "data: the weights of some examples differ"
    ]


def test_a_change_behind_the_first_batch_is_seen_in_the_shuffled_one(numbers, saved):
    """Of the seven others, some are seen: a batch of four of eleven is drawn."""
    x, y = numbers
    seen = []
    for place in range(4, 11):
        labels = y.copy()
        labels[place] = (labels[place] + 1) % 3
        seen += differences(saved, facts(numbers, data=(x, labels)))
    assert 0 < len(seen) < 7
    # Under another seed, the shuffled batch is another anyway.
    assert differences(saved, facts(numbers, seed=5)) == ["seed was 0, now 5"]


def test_one_hot_labels_and_missing_numbers(numbers):
    x, y = numbers
    saved = facts((x, np.eye(3, dtype="float32")[y]))
    assert differences(saved, facts((x, np.eye(3, dtype="float32")[y]))) == []
    assert differences(saved, facts((x, np.eye(3, dtype="float32")[2 - y]))) == [
        "data: the labels of some examples differ"
    ]
    x = x.copy()
    x[0, 0] = np.nan
    assert differences(facts((x, y)), facts((x, y))) == []
    assert differences(facts((x, y)), facts(numbers)) != []


def test_texts_that_are_padded_to_another_length_are_the_same(text_encoder):
    texts = ["good film", "bad film !", "the the the good film", "bad"]

    def of(**options):
        model = tlkit.text_classifier(text_encoder, LABELS)
        preprocess = models.preprocessing(model, **options)
        feed = make_feed(texts, [0, 1, 0, 1], None, Options(2, preprocess=preprocess))
        return fingerprint(
            model,
            [Phase()],
            feed,
            optimizer=keras.optimizers.AdamW(),
            loss="mse",
            seed=0,
            batch_size=2,
        )

    saved = of()
    assert differences(saved, of(fixed_length=True)) == []
    assert differences(of(fixed_length=True), saved) == []
    texts[0] = "bad film"
    assert differences(saved, of()) == ["data: the inputs of some examples differ"]


def test_a_dataset_that_changes_is_known_by_its_form(numbers):
    def of(dataset):
        feed = make_feed(dataset, None, None, Options(4))
        return fingerprint(
            make_plain_model(),
            [Phase()],
            feed,
            optimizer=keras.optimizers.AdamW(),
            loss="mse",
            seed=0,
            batch_size=4,
        )

    elements = tf.data.Dataset.from_tensor_slices(numbers)
    batched = elements.shuffle(11).batch(4)
    assert of(batched)["data"]["content"] == []
    assert differences(of(batched), of(elements.shuffle(11).batch(4))) == []
    assert differences(of(batched), of(elements.batch(2))) == [
        "data: batches was 3, now 6"
    ]
    # Not batched, so it counts as one that repeats; here it does not.
    assert differences(of(elements.shuffle(11)), of(elements.shuffle(11))) == []


def test_the_error_says_what_differs_and_what_to_type(numbers, saved):
    with pytest.raises(TrainingError) as caught:
        check_same(saved, facts(numbers, seed=3, batch_size=2))
    said = str(caught.value)
    assert "belongs to another job, and is not changed:" in said
    assert "  data: batch size was 4, now 2\n  seed was 0, now 3\n" in said
    assert "give another directory" in said


def test_another_process_finds_the_same(make_model, image_encoder):
    code = f"""
import json
import keras
import tlkit
from tlkit.training.checkpoints.job_facts import model_facts
for _ in range(3):
    keras.Sequential([keras.layers.Dense(1)]).build((1, 1))
model = tlkit.image_classifier({str(image_encoder)!r}, {LABELS}, image_size=8)
again = tlkit.image_classifier({str(image_encoder)!r}, {LABELS}, image_size=8)
print(json.dumps([model_facts(model), model_facts(again)]))
"""
    done = forked.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    here = json.loads(json.dumps(model_facts(make_model())))
    assert json.loads(done.stdout.splitlines()[-1]) == [here, here]
