"""Keras's arguments of `fit` about data have Keras's meaning, or are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.conftest import make_plain_model
from tlkit.errors import DataError, PlanError, TrainingError
from tlkit.training import evaluate
from tlkit.training.arguments import feed_options
from tlkit.training.data_arguments import DataArguments, make_feeds

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4)).astype("float32")
Y = RANDOM.integers(0, 3, 24)
W = np.linspace(0, 2, 24)
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


class Shuffled(keras.utils.PyDataset):
    """Batches in an order that each epoch changes."""

    def __init__(self, **options):
        super().__init__(**options)
        self.epochs, self.order = 0, np.arange(24)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = self.order[6 * index : 6 * index + 6]
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.epochs += 1
        self.order = np.random.default_rng(self.epochs).permutation(24)


def endless():
    first = 0
    while True:
        rows = np.arange(first, first + 5) % 24
        first += 5
        yield X[rows], Y[rows]


def classifier():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = make_plain_model()
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def two_by_two():
    a, b = keras.Input((4,)), keras.Input((2,))
    joined = keras.layers.Concatenate()([a, b])
    outputs = {
        "p": keras.layers.Dense(2, kernel_initializer="ones", name="p")(joined),
        "q": keras.layers.Dense(1, kernel_initializer="ones", name="q")(joined),
    }
    model = keras.Model([a, b], outputs)
    model.compile(keras.optimizers.SGD(0.01), {"p": "mse", "q": "mae"})
    return model


def steps_of_texts():
    layer = keras.layers.Dense(3, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((2, 2)), layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


CASES = {
    "the last examples validate": (
        classifier,
        lambda: (X, Y),
        dict(epochs=3, validation_split=0.25, sample_weight=W, batch_size=5),
    ),
    "a run from the third epoch on": (
        classifier,
        lambda: (X, Y),
        dict(
            epochs=5,
            initial_epoch=2,
            validation_data=(X, Y),
            validation_freq=2,
            validation_steps=3,
        ),
    ),
    "a generator goes on": (
        classifier,
        lambda: (endless(),),
        dict(
            epochs=3,
            steps_per_epoch=4,
        ),
    ),
    "a PyDataset": (classifier, lambda: (Shuffled(workers=2),), dict(epochs=3)),
    "inputs, outputs and weights in nests": (
        two_by_two,
        lambda: ([X, X[:, :2]], {"p": X[:, :2], "q": Y}),
        dict(epochs=1, sample_weight={"p": W, "q": W[::-1]}),
    ),
    "weights of steps": (
        steps_of_texts,
        lambda: (X.reshape(24, 2, 2), RANDOM.integers(0, 3, (24, 2))),
        dict(epochs=1, sample_weight=RANDOM.uniform(size=(24, 2))),
    ),
}


@pytest.mark.filterwarnings("ignore:.shuffle=True.")
@pytest.mark.parametrize("case", CASES)
def test_weights_and_history_are_keras_s(case):
    make_model, make_data, options = CASES[case]
    models = [make_model() for _ in range(2)]
    data = make_data()
    options = options | {"shuffle": False, "verbose": 0}
    expected = models[0].fit(*data, **options).history
    if len(data) == 1:
        data = make_data()  # a generator is read once
    report = tlkit.fit(models[1], *data, **options)
    for one, other in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert report.history.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(
            values, report.history[name], rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(
    "data, options, message",
    [
        ((X, Y), {"shuffle": "batch"}, "shuffle must be True or False"),
        ((X, Y), {"validation_steps": 2}, "no validation data"),
        ((X, Y), {"validation_freq": 2}, "no validation data"),
        ((X, Y), {"validation_freq": 0}, "number of epochs, 1 or more"),
        ((X, Y), {"steps_per_epoch": 2.5}, "steps_per_epoch must be 1 or more"),
        ((X, Y), {"validation_data": (X, Y), "validation_split": 0.5}, "exclude"),
        ((DATASET,), {"validation_split": 0.5}, r"x\.take\(n\)"),
        ((DATASET,), {"sample_weight": W}, "Leave sample_weight out"),
        ((X, Y), {"validation_data": endless()}, "Type validation_steps="),
        (
            (X, Y),
            {"validation_data": DATASET, "validation_steps": 7},
            "validation data has 6 batches",
        ),
        ((X, Y), {"validation_data": 3}, "a generator, a PyDataset or a data loader"),
        ((X, Y + 1), {}, "training example .* is 3, but the model has 3 classes"),
        (
            (X, Y),
            {"validation_data": (X, Y - 1)},
            "validation example .* is -1, but the model has 3 classes",
        ),
        (
            (DATASET.map(lambda x, y: (x, y + 1)),),
            {},
            "training example . of batch 0 is 3",
        ),
        (
            (DATASET,),
            {"augmentation": tlkit.data.Augmentation()},
            "augmentation is for images",
        ),
        ((X, Y), {"augmentation": tlkit.data.Augmentation()}, "Leave it out"),
        ((X, Y), {"class_weight": {7: 5.0}}, "key 7: it must be an index from 0 to 2"),
        ((X, Y), {"class_weight": "even"}, '"balanced" or a dict'),
        ((DATASET,), {"class_weight": "balanced"}, "Give the weights"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(data, options, message):
    with pytest.raises(DataError, match=message):
        tlkit.fit(classifier(), *data, epochs=1, verbose=0, **options)


class Stop(keras.callbacks.Callback):
    """Stops a run after some batches, as Ctrl-C does."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:The checkpoint contains states of callbacks")
def test_a_resumed_run_leaves_out_what_a_generator_gave(tmp_path):
    models = [classifier() for _ in range(3)]
    options = dict(steps_per_epoch=3, epochs=3, verbose=0)
    tlkit.fit(models[0], endless(), **options)
    options |= {"directory": tmp_path, "resume": True}
    options |= {"checkpoints": tlkit.Checkpoints(steps=1)}
    with pytest.raises(KeyboardInterrupt):
        tlkit.fit(models[1], endless(), callbacks=Stop(5), **options)
    report = tlkit.fit(models[2], endless(), **options)
    assert len(report.history["loss"]) == 3
    pairs = zip(models[0].get_weights(), models[2].get_weights(), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_a_generator_needs_the_steps_of_an_epoch():
    with pytest.raises(PlanError, match="Type steps_per_epoch="):
        tlkit.fit(classifier(), endless(), epochs=1, verbose=0)


def test_initial_epoch_is_for_one_phase():
    phases = [tlkit.Phase("all", epochs=1, learning_rate=0.1)] * 2
    for schedule in (phases, [tlkit.Phase("all", steps=3, learning_rate=0.1)]):
        with pytest.raises(PlanError, match="epochs of one phase"):
            tlkit.fit(classifier(), X, Y, schedule=schedule, initial_epoch=1, verbose=0)
    with pytest.raises(PlanError, match="Type epochs=4 or more"):
        tlkit.fit(classifier(), X, Y, epochs=3, initial_epoch=3, verbose=0)


def test_balanced_weights_are_scikit_learn_s():
    labels = np.array([0] * 4 + [1] * 12 + [2] * 8)
    model = make_plain_model()
    data = DataArguments(X, labels, class_weight="balanced")
    feed, _ = make_feeds(model, data, feed_options(model, batch_size=None))
    _, weights = feed.labels_and_weights()
    np.testing.assert_allclose(weights, np.array([2, 24 / 36, 1])[labels], rtol=1e-6)


def test_the_epochs_that_validate():
    data = DataArguments(X, validation_data=(X, Y), validation_freq=3)
    assert [data.validates(epoch) for epoch in range(4)] == [False, False, True, False]
    data = DataArguments(X, validation_data=(X, Y), validation_freq=[1, 4])
    assert [data.validates(epoch) for epoch in range(4)] == [True, False, False, True]


def test_evaluate_weighs_examples_checks_labels_and_names_outputs_without_label():
    x = np.random.default_rng(0).normal(size=(11, 4)).astype("float32")
    y, weights = np.arange(11) % 3, np.linspace(0.5, 2, 11).astype("float32")
    dense = keras.layers.Dense(3, kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((4,)), dense])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    right = model.evaluate(x, y, sample_weight=weights, verbose=0)
    evaluation = evaluate(model, x, y, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(evaluation.loss, right, rtol=1e-6)
    with pytest.raises(DataError, match="test example 2 is 3"):
        evaluate(model, x, y + 1, verbose=0)
    x[4] = np.nan
    with pytest.raises(TrainingError, match="example 4 is not finite"):
        evaluate(model, x, y, verbose=0)
