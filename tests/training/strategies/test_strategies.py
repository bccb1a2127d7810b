"""Strategies by name, and which models must be copied into a scope."""

import json
import time

import pytest
import tensorflow as tf

from tests.training.two_devices import result_of, start
from tlkit.errors import DataError, TrainingError
from tlkit.training.strategies.strategies import (
    check_batch_size,
    find_placement,
    strategy,
)

PLACES = """
import keras
from tlkit.errors import TrainingError
from tlkit.training.strategies.strategies import find_placement, strategy

def make():
    layers = [keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dropout(0.5)]
    return keras.Sequential(layers)

mirrored = strategy("mirrored")
other = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
second = tf.distribute.OneDeviceStrategy("/cpu:1")
names = {id(mirrored): "mirrored", id(other): "other", id(second): "second",
         id(strategy("cpu")): "cpu", id(tf.distribute.get_strategy()): "none"}

def told(model, wanted):
    place = find_placement(model, wanted)
    device = place.device and place.device[-5:]
    return [names[id(place.strategy)], device, place.copy]

plain = make()
with mirrored.scope():
    inside = make()
with tf.device("/cpu:1"):
    there = make()
found = {}
for name, model in (("plain", plain), ("inside", inside), ("there", there)):
    for wanted in (None, "auto", "cpu", "mirrored", other, second):
        key = wanted if isinstance(wanted, str) else names.get(id(wanted), "None")
        found[f"{name} {key}"] = told(model, wanted)
with mirrored.scope():
    found["plain in the scope"] = told(plain, None)
    try:
        find_placement(inside, second)
    except TrainingError as error:
        found["in another scope"] = str(error)
workers = tf.distribute.MultiWorkerMirroredStrategy()
names[id(workers)] = "workers"
with workers.scope():
    found["at work"] = told(make(), "multi_worker")
found["replicas"] = mirrored.num_replicas_in_sync
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def places():
    return result_of(start(PLACES))


@pytest.mark.parametrize(
    "key, expected",
    [
        ("plain None", ["none", None, False]),
        ("plain auto", ["none", "CPU:0", False]),
        ("plain cpu", ["none", "CPU:0", False]),
        ("plain mirrored", ["mirrored", None, True]),
        ("plain second", ["second", None, True]),
        ("plain in the scope", ["mirrored", None, True]),
        ("inside None", ["mirrored", None, False]),
        ("inside auto", ["mirrored", None, False]),
        ("inside cpu", ["cpu", None, True]),
        ("inside mirrored", ["mirrored", None, False]),
        ("inside other", ["other", None, True]),
        ("at work", ["workers", None, False]),
        ("there cpu", ["cpu", None, True]),
        ("there second", ["none", "CPU:1", False]),
    ],
)
def test_what_has_to_be_copied(places, key, expected):
    assert places[key] == expected


def test_two_strategies_at_once_are_an_error(places):
    assert places["replicas"] == 2
    assert "called in the scope of a MirroredStrategy" in places["in another scope"]
    assert "with another, a OneDeviceStrategy" in places["in another scope"]


def test_names():
    with pytest.raises(TrainingError, match="'auto', 'cpu', .*Received: 'cuda'"):
        strategy("cuda")
    assert strategy("cpu") is strategy("cpu")
    assert strategy(strategy("cpu")) is strategy("cpu")


def test_one_device_can_be_mirrored(plain_model):
    if len(tf.config.list_logical_devices("GPU")) > 1:
        pytest.skip("there are several GPUs")
    mirrored = strategy("mirrored")
    assert mirrored.num_replicas_in_sync == 1
    assert find_placement(plain_model, "mirrored").copy


def test_no_gpu_says_what_there_is():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="finds no GPU. The devices are: 1 CPU"):
        strategy("gpu")


def test_no_tpu_is_an_error_at_once_and_harms_nothing(monkeypatch):
    if tf.config.list_physical_devices("TPU"):
        pytest.skip("there is a TPU")
    monkeypatch.delenv("TPU_NAME", raising=False)
    variable, add = tf.Variable(1.0), tf.function(lambda x: x + variable)
    add(tf.constant(1.0))
    began = time.monotonic()
    with pytest.raises(TrainingError, match="The devices are: 1 CPU.*tensorflow-tpu"):
        strategy("tpu")
    assert time.monotonic() - began < 20  # nobody was waited for
    assert float(add(tf.constant(2.0))) == 3.0


@pytest.mark.parametrize("config", ["{half", "[]", '{"cluster": 3}'])
def test_a_broken_cluster_is_an_error(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(TrainingError, match="TF_CONFIG"):
        strategy("auto")


def test_a_cluster_of_one_is_none(monkeypatch):
    task = {"type": "worker", "index": 0}
    config = {"cluster": {"worker": ["localhost:1"]}, "task": task}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert isinstance(strategy("auto"), tf.distribute.OneDeviceStrategy)


def test_each_replica_needs_an_example():
    class Eight:
        num_replicas_in_sync = 8

    check_batch_size(8, Eight())
    with pytest.raises(DataError, match="less than the 8 replicas.*batch_size=8"):
        check_batch_size(7, Eight())
    check_batch_size(1, tf.distribute.get_strategy())
