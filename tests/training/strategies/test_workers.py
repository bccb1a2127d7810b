"""Workers connect, communicate, and name those that are missing or lost."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests import forked
from tlkit.errors import TrainingError
from tlkit.launching import read_cluster
from tlkit.launching.cluster import free_addresses, tf_config
from tlkit.training.strategies import workers
from tlkit.training.strategies.rendezvous import _greeting, connect

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def addresses(monkeypatch):
    """Two addresses, and a `TF_CONFIG` that makes this process the second worker."""
    found = free_addresses(2)
    monkeypatch.setenv("TF_CONFIG", tf_config(found, 1))
    return found


def test_one_process_needs_no_communication():
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy()):
        assert workers.worker_count(strategy) == 1
        assert workers.is_chief(strategy)
        assert workers.broadcast_from_chief(strategy, [1, 0.5]) == [1, 0.5]
        assert workers.any_worker(strategy, True) is True
        assert workers.any_worker_each(strategy, [False, True]) == [False, True]
        with pytest.raises(tf.errors.UnavailableError):
            with workers.naming_lost_workers(strategy):
                raise tf.errors.UnavailableError(None, None, "not a worker")


def test_without_a_cluster_the_error_says_how_to_start(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(TrainingError, match="python -m tlkit.launch --workers 2"):
        connect()


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_wrong_timeout_is_an_error(addresses, monkeypatch, seconds):
    monkeypatch.setenv("TLKIT_START_TIMEOUT", seconds)
    with pytest.raises(TrainingError, match="TLKIT_START_TIMEOUT must be a number"):
        connect()


def test_a_missing_worker_is_named(addresses):
    began = time.monotonic()
    with pytest.raises(TrainingError) as caught:
        connect(1)
    assert time.monotonic() - began < 10
    assert f"Missing: worker 0 ({addresses[0]})" in str(caught.value)
    assert "Only 1 of 2 workers started within 1 s" in str(caught.value)
    # Its own port is free again.
    with pytest.raises(TrainingError, match="worker 0"):
        connect(0.1)


def test_a_port_in_use_is_named(addresses):
    host, port = addresses[1].split(":")
    with socket.create_server((host, int(port))):
        with pytest.raises(TrainingError, match="cannot listen") as caught:
            connect(1)
    assert addresses[1] in str(caught.value)


@contextlib.contextmanager
def somebody(address, greeting):
    """Listens there, and greets once."""
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:

        def greet():
            peer, _ = server.accept()
            with peer:
                peer.sendall(greeting)
                peer.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        yield
        thread.join()


def test_two_workers_of_one_number_are_found_out(addresses):
    cluster = read_cluster(os.environ)
    with somebody(addresses[0], _greeting(cluster, "worker 1")):
        with pytest.raises(TrainingError, match="index of its own") as caught:
            connect(5)
    text = f"Worker 0 should be at {addresses[0]}, but there is worker 1"
    assert text in str(caught.value)


def test_a_worker_with_another_list_is_found_out(addresses):
    other = read_cluster({"TF_CONFIG": tf_config([addresses[0], "else:1"], 0)})
    with somebody(addresses[0], _greeting(other, "worker 0")):
        with pytest.raises(TrainingError, match="that has other addresses"):
            connect(5)


def test_the_strategy_has_to_be_made_first(addresses, monkeypatch):
    # Put back what connect sets: here, TensorFlow has been used for long.
    tf.constant(0)
    monkeypatch.setattr(context.context(), "_coordination_service_config", None)
    cluster = read_cluster(os.environ)
    with somebody(addresses[0], _greeting(cluster, "worker 0")):
        with pytest.raises(TrainingError, match="first lines of the script"):
            connect(5)


# The chief notices by heartbeats, the others by the connection.
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_two_workers_communicate_until_one_is_lost(victim):
    addresses = free_addresses(2)
    # A proxy, through which gRPC would lead even these two.
    proxy = {"http_proxy": "http://127.0.0.1:1", "no_proxy": "example.org"}
    more = proxy | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    script = pathlib.Path(__file__).with_name("two_workers.py")
    both = [
        forked.Popen(
            [sys.executable, str(script), str(victim)],
            env=os.environ | more | {"TF_CONFIG": tf_config(addresses, k)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in (0, 1)
    ]
    try:
        printed = [process.communicate(timeout=300) for process in both]
    finally:
        for process in both:
            process.kill()
    seen = [list(map(json.loads, out.splitlines())) for out, _ in printed]
    for k, lines in enumerate(seen):
        assert lines, printed[k][1][-3000:]
        assert lines[0] == {
            "same": True,
            "count": 2,
            "chief": k == 0,
            "agreed": [1, 0.1, 2**62, -5, True, 1e-310],
            "any": [True, True, False],
            "each": [False, True, True],
            "kinds": ["int", "float", "int", "int", "bool", "float"],
            "sigterm": True,
        }
    lost = seen[1 - victim][1]
    assert f"Lost: worker {victim} ({addresses[victim]})" in lost["lost"]
    assert "resume=True" in lost["lost"]
    assert lost["seconds"] < 30
    assert both[1 - victim].returncode == 0 and len(seen[victim]) == 1
