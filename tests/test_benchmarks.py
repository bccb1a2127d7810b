"""Each benchmark starts, and what it imports from tlkit and the tests exists."""

import ast
import importlib
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def is_there(module, name):
    try:
        return hasattr(importlib.import_module(module), name) or bool(
            importlib.import_module(f"{module}.{name}")
        )
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("name", MODULES)
def test_imports_of_ours_exist(name):
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level
        if node.module.split(".")[0] in ("tlkit", "tests")
        for alias in node.names
        if not is_there(node.module, alias.name)
    ]
    assert not missing


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_starts(name, monkeypatch, capsys):
    module = importlib.import_module(f"tests.benchmarks.{name}")
    if not hasattr(module, "main"):
        return
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out
