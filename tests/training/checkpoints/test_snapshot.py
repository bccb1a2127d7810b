"""A run is restored from a snapshot as it was."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests import forked
from tests.training.conftest import make_plain_model
from tlkit.errors import TrainingError
from tlkit.training.checkpoints import checkpoint_files as checkpoints
from tlkit.training.checkpoints import snapshot as snapshots
from tlkit.training.checkpoints.callback_states import CallbackStates
from tlkit.training.checkpoints.checkpoint_files import CheckpointWarning
from tlkit.training.checkpoints.variable_names import stable_names

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Job:
    """A model, its optimizer and its figures, trained one step at a time."""

    def __init__(self, model, optimizer, metrics=(), callbacks=()):
        self.model, self.optimizer = model, optimizer
        self.optimizer.build(model.trainable_variables)
        self.metrics = [keras.metrics.Mean(name="loss"), *metrics]
        self.states = CallbackStates(callbacks)

    def step(self, x, y):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = self.model(x, training=True)
            loss = LOSS(y, outputs)
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.count(loss, y, outputs)

    def count(self, loss, labels, outputs):
        loss_metric, *metrics = self.metrics
        loss_metric.update_state(loss)
        for metric in metrics:
            metric.update_state(labels, outputs)

    def results(self):
        return {metric.name: float(metric.result()) for metric in self.metrics}

    def values(self):
        variables = [*self.model.weights, *self.optimizer.variables]
        variables += [v for metric in self.metrics for v in metric.variables]
        return [np.array(variable) for variable in variables]

    def take(self):
        return snapshots.take_snapshot(
            self.model, self.optimizer, self.metrics, self.states
        )

    def put_back(self, arrays, state):
        snapshots.restore_snapshot(
            arrays,
            state,
            model=self.model,
            optimizer=self.optimizer,
            metrics=self.metrics,
            callbacks=self.states,
        )


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "use_ema": True},
    "LossScaleOptimizer": {"inner_optimizer": "nadam"},
} | dict.fromkeys(
    "RMSprop Adam AdamW Adadelta Adagrad Adamax Adafactor Nadam Ftrl Lion Lamb "
    "Muon ScheduleFreeAdamW".split(),
    {},
)


def make_optimizer(name):
    options = dict(OPTIMIZERS[name])
    if "inner_optimizer" in options:
        options["inner_optimizer"] = keras.optimizers.Nadam()
    return getattr(keras.optimizers, name)(**options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_ends_as_the_undisturbed_one(name, numbers, tmp_path):
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    one = Job(make_plain_model(), make_optimizer(name), [make_accuracy()])
    for _ in range(3):
        one.step(*numbers)
    checkpoints.write(tmp_path, 3, *one.take(), keep=1)
    for _ in range(3):
        one.step(*numbers)

    other = Job(make_plain_model(seed=8), make_optimizer(name), [make_accuracy()])
    saved = checkpoints.latest(tmp_path)
    other.put_back(saved.arrays, saved.state)
    for _ in range(3):
        other.step(*numbers)
    assert_same(one.values(), other.values())
    assert int(other.optimizer.iterations) == 6
    assert one.results() == other.results()


def make_accuracy():
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def test_a_snapshot_stays_as_it_was_taken(numbers):
    job = Job(make_plain_model(), keras.optimizers.AdamW())
    job.step(*numbers)
    arrays, _ = job.take()
    before = {name: array.copy() for name, array in arrays.items()}
    job.step(*numbers)
    assert_same(before.values(), arrays.values())
    later, _ = job.take()
    moved = [name for name in arrays if not np.array_equal(arrays[name], later[name])]
    assert set(arrays) - set(moved) == {"optimizer/learning_rate"}


def test_names_do_not_depend_on_what_was_built_before(numbers):
    made = []
    for _ in range(2):
        job = Job(make_plain_model(), keras.optimizers.Adam())
        made.append(job)
        keras.layers.Dense(1)
    first, second = made
    assert first.model.weights[0].path != second.model.weights[0].path
    assert first.take()[0].keys() == second.take()[0].keys()
    assert list(first.take()[0])[:8] == [
        "weights/sequential/dense/kernel",
        "weights/sequential/dense/bias",
        "weights/sequential/dense_1/kernel",
        "weights/sequential/dense_1/bias",
        "optimizer/iteration",
        "optimizer/learning_rate",
        "optimizer/sequential/dense/kernel/momentum",
        "optimizer/sequential/dense/kernel/velocity",
    ]


def test_names_of_variables_are_all_different():
    twin = keras.layers.Dense(2, name="twin"), keras.layers.Dense(2, name="twin")
    layers = [*twin, keras.layers.Dense(2, name="layer_7")]
    layers.append(keras.layers.Dense(2, name="layer_3"))
    for layer in layers:
        layer.build((1, 2))
    assert stable_names([w for layer in layers for w in layer.weights]) == [
        "twin/kernel",
        "twin/bias",
        "twin/kernel#2",
        "twin/bias#2",
        "layer/kernel",
        "layer/bias",
        "layer_1/kernel",
        "layer_1/bias",
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_slot_stands_under_its_weight(name):
    """Notices when Keras names slots in another way, which it does not document."""
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    model = make_plain_model()
    job = Job(model, make_optimizer(name))
    slots = snapshots.slots_by_name(job.optimizer, model)
    weights = snapshots.weights_by_name(model, "optimizer/")
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    owned = {slot: slot.rsplit("/", 1)[0] for slot in slots if slot.count("/") > 1}
    assert {owner for owner in owned.values()} <= set(shapes)
    assert all(
        tuple(slots[slot].shape) == shapes[owner] for slot, owner in owned.items()
    )
    alone = {slot.split("/")[1].split("#")[0] for slot in slots if slot not in owned}
    # The factors of Adafactor are called as the weight is, whatever layer it is in,
    # and Nadam's product of momenta has no name.
    known = {"iteration", "learning_rate", "step_counter", "dynamic_scale"}
    assert alone <= known | {"variable", "u_product", "kernel", "bias"}
    counts = {"AdamW": 2, "SGD": 2, "Nadam": 2, "RMSprop": 1, "Lion": 1}
    if name in counts:
        assert len(owned) == counts[name] * len(weights)
        assert "kernel" not in alone


def test_what_does_not_fit_is_named_and_nothing_is_written(numbers):
    job = Job(make_plain_model(), keras.optimizers.Adam())
    job.step(*numbers)
    arrays, state = job.take()

    wider = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(3)]
    )
    other = Job(wider, keras.optimizers.SGD(momentum=0.9))
    before = other.values()
    with pytest.raises(TrainingError) as caught:
        other.put_back(arrays, state)
    lines = str(caught.value).splitlines()
    kernel = "weights/sequential/dense/kernel"
    assert (
        f"  {kernel} is float32 [4, 5] in the checkpoint, but float32 [4, 6] here"
        in lines
    )
    slot = "optimizer/sequential/dense/bias/velocity"
    assert f"  {slot} is in the checkpoint, but missing here" in lines
    assert "give another directory" in lines[-1]
    assert_same(before, other.values())

    arrays["weights/sequential/dense/bias"] = np.zeros(5, np.float16)
    del arrays["optimizer/iteration"]
    with pytest.raises(TrainingError) as caught:
        job.put_back(arrays, state)
    assert "bias is float16 [5] in the checkpoint, but float32 [5] here" in str(
        caught.value
    )
    assert "optimizer/iteration is missing in the checkpoint" in str(caught.value)


def test_other_metrics_start_from_zero(numbers):
    job = Job(make_plain_model(), keras.optimizers.SGD(), [make_accuracy()])
    job.step(*numbers)
    arrays, state = job.take()
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top 2")
    other = Job(make_plain_model(), keras.optimizers.SGD(), [top])
    with pytest.warns(CheckpointWarning, match="start from zero.*: accuracy, top 2"):
        other.put_back(arrays, state)
    assert other.results()["loss"] == job.results()["loss"]
    assert other.results()["top 2"] == 0.0


def test_a_model_of_ours_with_slots_for_what_is_frozen_now(make_model, tmp_path):
    """A phase trains a part; the slots of all are there, and come back."""
    jobs = []
    for _ in range(2):
        model = make_model()
        tlkit.freeze(model, train="all", batch_norm="train")
        jobs.append(Job(model, keras.optimizers.AdamW()))
        tlkit.freeze(model, train="head")
    one, other = jobs
    x = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    one.step(x, np.arange(6) % 3)
    tlkit.freeze(one.model, train="all", batch_norm="train")
    one.step(x, np.arange(6) % 3)
    checkpoints.write(tmp_path, 2, *one.take(), keep=1)
    saved = checkpoints.latest(tmp_path)
    assert "optimizer/stage1/stage1_conv_kernel/velocity" in saved.arrays
    other.put_back(saved.arrays, saved.state)
    assert_same(one.values(), other.values())
    moving = saved.arrays["weights/stage2/stage2_conv_bn_moving_mean"]
    assert np.abs(moving).max() > 0


# === Strategies ===

TWO = """
import json, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
from tests.training.conftest import make_plain_model
from tests.training.checkpoints.test_snapshot import Job, make_accuracy
from tlkit.training.checkpoints import checkpoint_files as checkpoints

random = np.random.default_rng(0)
x, y = random.normal(size=(8, 4)).astype("float32"), np.arange(8) % 3

def train(job, place, steps):
    def step(x, y):
        variables = job.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = job.model(x, training=True)
            values = tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)
            loss = tf.reduce_mean(values) / place.num_replicas_in_sync
        job.optimizer.apply(tape.gradient(loss, variables), variables)
        job.count(loss, y, outputs)
    run = tf.function(lambda batch: place.run(step, batch))
    size = len(x) // place.num_replicas_in_sync
    def part(array):
        return place.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                array[context.replica_id_in_sync_group * size:][:size]
            )
        )
    for _ in range(steps):
        run((part(x), part(y)))

def make(place):
    with place.scope():
        return Job(make_plain_model(), keras.optimizers.Adam(0.1), [make_accuracy()])

none, mirrored = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"]
)
assert mirrored.num_replicas_in_sync == 2
result = {}
for name, places in {
    "undisturbed": [none, none],
    "to two": [none, mirrored],
    "to one": [mirrored, none],
    "two": [mirrored, mirrored],
}.items():
    directory = sys.argv[1] + "/" + name
    first, then = places
    job = make(first)
    train(job, first, 3)
    arrays, state = job.take()
    checkpoints.write(directory, 3, arrays, state, keep=1)
    job = make(then)
    train(job, then, 1)  # so that the replicas hold figures that must go
    saved = checkpoints.latest(directory)
    with then.scope():
        job.put_back(saved.arrays, saved.state)
        again, _ = job.take()
    same = {k: bool(np.array_equal(v, arrays[k])) for k, v in again.items()}
    assert all(same.values()), same
    train(job, then, 2)
    result[name] = {k: v.tolist() for k, v in job.take()[0].items()}
    result[name]["accuracy"] = job.results()["accuracy"]
print(json.dumps(result))
"""


def test_a_run_is_resumed_under_another_strategy(tmp_path):
    command = [sys.executable, "-c", TWO, str(tmp_path)]
    done = forked.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    wanted = result.pop("undisturbed")
    assert wanted["optimizer/iteration"] == 5
    assert wanted["metrics/accuracy/1"] == 5 * 8  # examples in five steps
    assert np.abs(wanted["optimizer/sequential/dense/kernel/velocity"]).min() > 0
    for found in result.values():
        for name, value in wanted.items():
            if not name.startswith("metrics/loss"):  # replicas count a mean each
                np.testing.assert_allclose(
                    found[name], value, rtol=1e-5, atol=1e-7, err_msg=name
                )
