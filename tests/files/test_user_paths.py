import os
import pathlib

import pytest

from tlkit.errors import DataError
from tlkit.files import user_path


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/1") == tmp_path / "runs" / "1"
    assert user_path(pathlib.Path("~")) == tmp_path
    assert user_path("runs/~") == pathlib.Path("runs/~")
    with pytest.raises(DataError, match="home folder in '~nobody-here/1' is unknown"):
        user_path("~nobody-here/1")


def test_a_bucket_is_no_path():
    # pathlib would make a folder `gs:` of it.
    with pytest.raises(DataError, match="got 'gs://bucket/runs'. Mount"):
        user_path("gs://bucket/runs")
    assert user_path(os.sep) == pathlib.Path(os.sep)
