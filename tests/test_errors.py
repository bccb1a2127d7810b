import sys

import pytest

from tlkit import errors


def test_errors_are_also_built_in_errors():
    assert issubclass(errors.SourceError, OSError)
    assert issubclass(errors.DataError, ValueError)
    assert issubclass(errors.TrainingError, RuntimeError)
    for name, error in vars(errors).items():
        if name.endswith("Error"):
            assert issubclass(error, errors.TlkitError)


def test_a_missing_extra_is_named(monkeypatch):
    assert errors.import_extra("sys", "x", "A test") is sys
    with pytest.raises(errors.ExtraError, match=r"A test .*pip install \"tlkit\[x\]\""):
        errors.import_extra("no_such_module", "x", "A test")
    with pytest.raises(errors.ExtraError):
        errors.import_extra("no_such_module.inner", "x", "A test")


def test_a_missing_module_of_an_extra_is_another_error(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as info:
        errors.import_extra("broken_extra", "x", "A test")
    assert not isinstance(info.value, errors.ExtraError)
