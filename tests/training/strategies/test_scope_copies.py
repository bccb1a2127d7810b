"""Models are copied into a strategy's scope and back, with all of their state."""

import contextlib
import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.strategies.copied_models import KINDS
from tests.training.two_devices import result_of, start
from tlkit.errors import TrainingError
from tlkit.training.strategies.scope_copies import copy_into_scope, recreate_in_scope

BETWEEN = """
from tests.training.strategies.copied_models import check_all
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
print(json.dumps(check_all({folder!r}, strategy)))
"""

WORKER = """
import json
import keras
import tensorflow as tf
from tlkit.training import strategy
from tlkit.training.strategies.scope_copies import copy_out_of_scope, copy_into_scope
workers = strategy("auto")
task = workers.cluster_resolver.task_id
keras.utils.set_random_seed(task)
layers = [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
model = keras.Sequential(layers)
before = model.layers[0].kernel.numpy().tolist()
inner = copy_into_scope(model, workers)
copy_out_of_scope(inner, model)
after = [variable.numpy().tolist() for variable in model.variables]
print(json.dumps([workers.num_replicas_in_sync, before, after]))
"""


@pytest.fixture(scope="module")
def between(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("copied"))
    return result_of(start(BETWEEN.format(folder=folder)))


@pytest.mark.parametrize("kind", [make.__name__ for make in KINDS])
def test_there_and_back(between, kind):
    assert between[kind] == ""


def test_workers_begin_with_the_weights_of_the_first():
    with contextlib.ExitStack() as stack:
        places = [stack.enter_context(socket.socket()) for _ in range(2)]
        for place in places:
            place.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{place.getsockname()[1]}" for place in places]
    workers = []
    for i in range(2):
        task = {"type": "worker", "index": i}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        workers.append(start(WORKER, head="", TF_CONFIG=config))
    first, second = [result_of(worker) for worker in workers]
    assert first[0] == second[0] == 2
    assert first[1] != second[1]
    assert first[1] == first[2][0] == second[2][0]
    assert first[2] == second[2]


class NoConfig(keras.Model):
    def __init__(self, units=2):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def unknown():
    model = NoConfig(units=3)
    model(np.ones((2, 4)))
    return model


def shared_between_models():
    dense, inputs, others = keras.layers.Dense(4), keras.Input((4,)), keras.Input((4,))
    inner = keras.Model(inputs, dense(inputs))
    return keras.Model(others, dense(inner(others)))


def extended():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.extra = keras.layers.Dense(2)
    return model


@pytest.mark.parametrize(
    "make, words",
    [
        (unknown, "'NoConfig' has no get_config"),
        (shared_between_models, "differs when it is created"),
        (extended, "2 layers or variables of its own, and 1"),
    ],
)
def test_a_model_that_cannot_be_copied_is_an_error(make, words):
    with pytest.raises(TrainingError, match=words) as caught:
        copy_into_scope(make(), tf.distribute.MirroredStrategy(["CPU:0"]))
    assert "    with strategy.scope():\n" in str(caught.value)


def test_an_encoder_that_was_not_opened_says_why(image_encoder):
    encoder = tlkit.load_encoder(image_encoder, open_graph=False)
    model = tlkit.image_classifier(encoder, ["a", "b"], image_size=8)
    with pytest.raises(TrainingError, match="open_graph=False"):
        copy_into_scope(model, tf.distribute.MirroredStrategy(["CPU:0"]))


def test_functions_keep_their_names():
    def shifted(x):
        return x + 1

    lambda_ = lambda x: x * 2
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(2, activation=shifted),
            keras.layers.Lambda(lambda_),
        ]
    )
    inner = copy_into_scope(model, tf.distribute.get_strategy())
    assert inner.layers[0].activation is shifted
    assert inner.layers[1].function is lambda_
    assert (shifted.__name__, lambda_.__name__) == ("shifted", "<lambda>")


def make_variables(*names):
    return [keras.Variable([0.0], name=name) for name in names]


def test_optimizers_and_metrics_go_too():
    class Warm(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.5

        def get_config(self):
            return {}

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    optimizer = recreate_in_scope(keras.optimizers.SGD(Warm(), momentum=0.25), strategy)
    metric = recreate_in_scope(
        keras.metrics.MeanMetricWrapper(lambda y, z: y, name="own"), strategy
    )
    assert optimizer.get_config()["momentum"] == 0.25
    assert float(optimizer.learning_rate) == 0.5
    assert metric.name == "own"
    for variable in [optimizer.iterations, *metric.variables]:
        assert variable.value.distribute_strategy is strategy
    adam = keras.optimizers.Adam(1e-3, weight_decay=0.1)
    adam.learning_rate = 1e-2
    adam.exclude_from_weight_decay(var_names=["bias"])
    copied = recreate_in_scope(adam, strategy)
    np.testing.assert_allclose(copied.learning_rate.numpy(), 1e-2, rtol=1e-6)
    decayed = [copied._use_weight_decay(v) for v in make_variables("kernel", "bias")]
    assert decayed == [True, False]

    class Odd(keras.metrics.Mean):
        def __init__(self, needed):
            super().__init__()

    with pytest.raises(TrainingError, match=r"metric = Odd\(…\)"):
        recreate_in_scope(Odd(1), strategy)
