import pathlib

from tlkit.files import cache_folder


def test_the_variable_names_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("TLKIT_CACHE", "~/models")
    assert cache_folder() == pathlib.Path.home() / "models"
    monkeypatch.setenv("TLKIT_CACHE", "relative")
    assert cache_folder() == pathlib.Path.cwd() / "relative"
    monkeypatch.delenv("TLKIT_CACHE")
    assert cache_folder().name == "tlkit"
