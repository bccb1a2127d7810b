"""Draws small trainings, and compares `tlkit.fit` with Keras's `fit` on each.

A case is a model, data in some form, and arguments of `compile` and `fit`. Both train
from the same weights in the order of the data. Their weights and histories must be
equal, or `tlkit.fit` must refuse the case with an error of its own, for a reason that
`REASONS` lists.

Not drawn, since results differ by design or by rounding alone: dropout, whose masks
have other seeds; embeddings, since Keras squares each of several rows of a sparse
gradient that have the same index, and not their sum; Lion, which takes the sign of
gradients near 0. The epsilon of Adam and its like is large for the same reason.
"""

import collections
import dataclasses
import math
import re

import hypothesis
import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

import tlkit
from tlkit.errors import TlkitError

CLASSES, STEPS = 3, 4
TOLERANCE = 1e-5

# Why tlkit.fit may refuse what Keras trains: a pattern of the error, and the reason.
REASONS = {
    "cannot be used on 2 replicas": "optimizers that Keras has to apply, on replicas",
    "MultiOptimizer": "several optimizers",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One training; the fields are names of what the functions below make."""

    model: str
    loss: str
    reduction: str
    loss_weight: float | None
    weights: str
    metrics: str
    weighted_metrics: bool
    optimizer: str
    form: str
    callback: str
    validation: str
    examples: int
    batch_size: int
    epochs: int
    steps_per_execution: int
    seed: int


CLASSIFIERS = ("dense", "batch_norm", "regularized", "normalized", "subclass", "linear")
MODELS = (*CLASSIFIERS, "tagger", "two_inputs", "two_outputs", "listed_outputs")
LOSSES = (
    "sparse",
    "sparse_name",
    "categorical",
    "mse",
    "huber",
    "function",
    "crossentropy",
)
OPTIMIZERS = (
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "rmsprop",
    "adagrad",
    "adamax",
    "nadam",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "schedule",
    "ema",
)
FORMS = ("arrays", "dataset", "lists", "pydataset", "generator")
CALLBACKS = ("none", "scheduler", "plateau", "stopping", "calls")


@st.composite
def cases(draw) -> Case:
    """Draws cases that Keras trains, as far as that is known without trying."""
    model = draw(st.sampled_from(MODELS))
    loss = draw(st.sampled_from(LOSSES if model in CLASSIFIERS else ("sparse",)))
    reductions = ["sum_over_batch_size", "sum", "mean_with_sample_weight"]
    if model == "linear" and loss in ("sparse", "categorical", "mse", "huber"):
        reductions.append("none")
    weights = ["none", "none", "steps"]
    if model != "tagger":
        weights = ["none", "none", "examples", "classes"]
    form = draw(st.sampled_from(FORMS))
    examples = draw(st.integers(5, 11))
    batch_size = draw(st.integers(2, 5))
    optimizer = draw(st.sampled_from(OPTIMIZERS))
    # Keras rejects a rate by callbacks for an optimizer with a schedule.
    callbacks = [c for c in CALLBACKS if c not in ("scheduler", "plateau")]
    return Case(
        model=model,
        loss=loss,
        reduction=draw(st.sampled_from(reductions)),
        loss_weight=draw(st.sampled_from([None, None, 0.3])),
        weights=draw(st.sampled_from(weights)),
        metrics=draw(st.sampled_from(["none", "accuracy", "several", "nested"])),
        weighted_metrics=draw(st.booleans()),
        optimizer=optimizer,
        form=form,
        callback=draw(
            st.sampled_from(callbacks if optimizer == "schedule" else CALLBACKS)
        ),
        validation=draw(st.sampled_from(["none", "none", "data", "split"])),
        examples=examples,
        batch_size=batch_size,
        epochs=draw(st.integers(1, 2)),
        # Of a generator, Keras would take more batches than an epoch has.
        steps_per_execution=draw(
            st.sampled_from([1] if form == "generator" else [1, 1, 3])
        ),
        seed=draw(st.integers(0, 999)),
    )


# === Models ===


class Subclass(keras.Model):
    """A model that builds itself on its first batch, with a loss of its layer."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(5, "tanh", activity_regularizer="l2")
        self.head = keras.layers.Dense(CLASSES)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def make_model(case: Case) -> keras.Model:
    """Builds the model of a case, each time with the same weights."""
    keras.utils.set_random_seed(case.seed)
    layers = keras.layers
    if case.model == "subclass":
        return Subclass()
    if case.model == "tagger":
        inputs = keras.Input((STEPS, 2))
        return keras.Model(inputs, layers.Dense(CLASSES)(layers.Masking()(inputs)))
    if case.model == "two_inputs":
        inputs = [keras.Input((4,), name="one"), keras.Input((4,), name="other")]
        return keras.Model(inputs, layers.Dense(CLASSES)(layers.Add()(inputs)))
    inputs = keras.Input((4,))
    if case.model in ("two_outputs", "listed_outputs"):
        hidden = layers.Dense(5, "tanh")(inputs)
        a, b = (
            layers.Dense(CLASSES, name="a")(hidden),
            layers.Dense(1, name="b")(hidden),
        )
        outputs = {"a": a, "b": b} if case.model == "two_outputs" else [a, b]
        return keras.Model(inputs, outputs)
    hidden = {
        "dense": lambda: layers.Dense(5, "relu")(inputs),
        "linear": lambda: inputs,
        "batch_norm": lambda: layers.BatchNormalization()(inputs),
        "regularized": lambda: layers.Dense(5, kernel_regularizer="l2")(inputs),
        "normalized": lambda: layers.Normalization(mean=0.5, variance=2.0)(inputs),
    }[case.model]()
    return keras.Model(inputs, layers.Dense(CLASSES)(hidden))


# === Data ===


def make_data(case: Case) -> tuple:
    """Returns inputs, labels and weights as arrays or nests of them."""
    random = np.random.default_rng(case.seed)
    count = case.examples
    numbers = lambda *shape: random.normal(size=(count, *shape)).astype("float32")
    x, y = numbers(4), random.integers(0, CLASSES, count)
    weights = random.uniform(0.5, 2, count).astype("float32")
    if case.model == "tagger":
        x = numbers(STEPS, 2)
        x[:, 1:] *= random.integers(0, 2, (count, STEPS - 1, 1))  # 0 is masked
        y = random.integers(0, CLASSES, (count, STEPS))
        if case.weights == "steps":
            weights = random.uniform(0.5, 2, (count, STEPS)).astype("float32")
    elif case.model == "two_inputs":
        x = [x, numbers(4)]
        if case.seed % 2:
            x = {"one": x[0], "other": x[1]}
    elif case.model == "two_outputs":
        y = {"a": y, "b": numbers(1)}
    elif case.model == "listed_outputs":
        y = [y, numbers(1)]
    elif case.loss in ("categorical", "mse", "huber", "function"):
        y = np.eye(CLASSES, dtype="float32")[y]
    return x, y, weights if case.weights in ("examples", "steps") else None


class Batches(keras.utils.PyDataset):
    """The batches of some arrays."""

    def __init__(self, parts: tuple, size: int):
        super().__init__()
        self.parts, self.size = parts, size

    def __len__(self):
        return math.ceil(len(keras.tree.flatten(self.parts)[0]) / self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return keras.tree.map_structure(lambda array: array[rows], self.parts)


def fit_arguments(case: Case) -> dict:
    """Returns the arguments of `fit`, for both; data is new each time."""
    x, y, weights = make_data(case)
    arguments = {"epochs": case.epochs, "shuffle": False, "verbose": 0}
    if case.callback != "none":
        arguments["callbacks"] = [make_callback(case)]
    single = case.model in CLASSIFIERS and case.loss in ("sparse", "sparse_name")
    if case.weights == "classes" and single:
        arguments["class_weight"] = {0: 2.0, 1: 0.5, 2: 1.0}
    parts = (x, y) if weights is None else (x, y, weights)
    if case.validation == "data":
        validation = Batches(parts, case.batch_size)
        arguments["validation_data"] = validation[0]
    arrays = case.form in ("arrays", "lists") or case.validation == "split"
    if arrays:
        if case.validation == "split":
            arguments["validation_split"] = 0.3
        if case.form == "lists" and case.model in CLASSIFIERS:
            y = y.tolist()
        named = {} if weights is None else {"sample_weight": weights}
        return arguments | named | {"x": x, "y": y, "batch_size": case.batch_size}
    batches = Batches(parts, case.batch_size)
    if case.form == "pydataset":
        return arguments | {"x": batches}
    if case.form == "dataset":
        if isinstance(x, list):
            parts = (tuple(x), *parts[1:])
        if isinstance(y, list):
            parts = (parts[0], tuple(y), *parts[2:])
        dataset = tf.data.Dataset.from_tensor_slices(parts).batch(case.batch_size)
        return arguments | {"x": dataset}

    def generate():
        while True:
            for i in range(len(batches)):
                yield keras.tree.lists_to_tuples(batches[i])

    steps = math.ceil(case.examples / case.batch_size)
    return arguments | {"x": generate(), "steps_per_epoch": steps}


# === Arguments of `compile` ===


def compile_arguments(case: Case) -> dict:
    """Returns new arguments of `compile`."""
    loss, loss_weights = make_loss(case), case.loss_weight
    metrics = {
        "none": None,
        "accuracy": ["accuracy"],
        "several": ["mae", mean_output, keras.metrics.MeanSquaredError(name="mse")],
        "nested": [["accuracy"]],
    }[case.metrics]
    if case.model in CLASSIFIERS and case.loss in (
        "sparse",
        "sparse_name",
        "crossentropy",
    ):
        metrics = ["accuracy", mean_output] if case.metrics == "several" else metrics
    elif case.model not in CLASSIFIERS:
        metrics = ["accuracy"] if metrics else None
    weighted = metrics and ["accuracy"] if case.weighted_metrics else None
    if case.model in ("two_outputs", "listed_outputs"):
        loss = {"a": loss, "b": "mse"}
        loss_weights = loss_weights and {"a": 1.0, "b": loss_weights}
        metrics = metrics and {"a": metrics, "b": ["mae"]}
        weighted = weighted and {"a": weighted, "b": []}
    return {
        "optimizer": make_optimizer(case.optimizer),
        "loss": loss,
        "loss_weights": loss_weights,
        "metrics": metrics,
        "weighted_metrics": weighted,
        "steps_per_execution": case.steps_per_execution,
        "jit_compile": False,
    }


def make_loss(case: Case):
    reduction = case.reduction
    if reduction == "none":
        reduction = None
    return {
        "sparse": lambda: keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=reduction
        ),
        "sparse_name": lambda: "sparse_categorical_crossentropy",
        "crossentropy": lambda: "crossentropy",
        "categorical": lambda: keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction=reduction
        ),
        "mse": lambda: keras.losses.MeanSquaredError(reduction=reduction),
        "huber": lambda: keras.losses.Huber(reduction=reduction),
        "function": lambda: mean_absolute_difference,
    }[case.loss]()


def mean_absolute_difference(labels, outputs):
    return keras.ops.mean(keras.ops.abs(labels - outputs), axis=-1)


def mean_output(labels, outputs):
    return keras.ops.mean(outputs, axis=-1)


def make_optimizer(name: str) -> keras.optimizers.Optimizer:
    optimizers = keras.optimizers
    decay = optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    return {
        "sgd": lambda: optimizers.SGD(0.1),
        "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        "adam": lambda: optimizers.Adam(0.01, epsilon=0.01),
        "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1, epsilon=0.01),
        "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, epsilon=0.01),
        "adagrad": lambda: optimizers.Adagrad(0.1),
        "adamax": lambda: optimizers.Adamax(0.01, epsilon=0.01),
        "nadam": lambda: optimizers.Nadam(0.01, epsilon=0.01),
        "clipnorm": lambda: optimizers.SGD(0.1, clipnorm=0.1),
        "global_clipnorm": lambda: optimizers.Adam(
            0.01, global_clipnorm=0.1, epsilon=0.01
        ),
        "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.05),
        "schedule": lambda: optimizers.SGD(decay),
        "ema": lambda: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9),
    }[name]()


class CallCounter(keras.callbacks.Callback):
    """Puts the number of calls of a hook into the history.

    Not the number of the batch: with `steps_per_execution`, Keras counts batches after
    the last one of an epoch.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.calls = 0

    def on_train_batch_end(self, batch, logs=None):
        self.calls += 1

    def on_epoch_end(self, epoch, logs=None):
        logs["calls"] = self.calls


def make_callback(case: Case) -> keras.callbacks.Callback:
    callbacks = keras.callbacks
    return {
        "scheduler": lambda: callbacks.LearningRateScheduler(lambda e: 0.1 / (e + 1)),
        "plateau": lambda: callbacks.ReduceLROnPlateau(
            "loss", min_delta=10, patience=1
        ),
        "stopping": lambda: callbacks.EarlyStopping("loss", min_delta=10, patience=1),
        "calls": CallCounter,
    }[case.callback]()


# === Comparing ===


def outcomes(
    count: int, seed: int, strategy: tf.distribute.Strategy | None = None
) -> tuple[dict[str, int], list[str]]:
    """Compares drawn cases.

    Returns:
        How many cases had each result of `compare`; and descriptions of those that
        failed.
    """
    numbers: dict[str, int] = collections.Counter()
    failures: list[str] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases())
    def compare_all(case):
        try:
            numbers[compare(case, strategy)] += 1
        except AssertionError as error:  # the others are compared all the same
            failures.append(str(error))

    compare_all()
    return dict(numbers), failures


def compare(case: Case, strategy: tf.distribute.Strategy | None = None) -> str:
    """Trains a case both ways.

    Returns:
        "equal"; or why tlkit refuses the case; or "not by Keras" if Keras cannot train
        it.

    Raises:
        AssertionError: The results differ, or an error is not one of tlkit.
    """
    if strategy is not None:
        # Of an uneven batch, Keras weights replicas equally, and tlkit examples.
        case = dataclasses.replace(case, examples=8, batch_size=4)
    scope = (strategy or tf.distribute.get_strategy()).scope
    with scope():
        theirs, ours = make_model(case), make_model(case)
        for model in (theirs, ours):
            model.compile(**compile_arguments(case))
    try:
        history = theirs.fit(**fit_arguments(case)).history
    except Exception:  # of Keras or TensorFlow: any
        return "not by Keras"
    try:
        report = tlkit.fit(ours, **fit_arguments(case), cache=False)
    except TlkitError as error:
        for pattern, reason in REASONS.items():
            if re.search(pattern, str(error)):
                return reason
        raise AssertionError(f"{case}\nis refused: {error}") from error
    except Exception as error:
        raise AssertionError(f"{case}\n{type(error).__name__}: {error}") from error
    _assert_equal(case, theirs, ours, history, report.history)
    return "equal"


def _assert_equal(case: Case, theirs, ours, history: dict, our_history: dict) -> None:
    for variable, other in zip(theirs.weights, ours.weights, strict=True):
        right, value = (keras.ops.convert_to_numpy(v) for v in (variable, other))
        apart = np.abs(right - value).max() / max(1, np.abs(right).max())
        assert apart <= TOLERANCE, f"{case}\n{variable.path} is {apart:.2g} apart"
    assert set(history) == set(our_history), (
        f"{case}\n{set(history) ^ set(our_history)}"
    )
    for name, right in history.items():
        close = np.allclose(right, our_history[name], rtol=1e-4, atol=1e-6)
        assert close, f"{case}\n{name}: {our_history[name]} instead of {right}"
