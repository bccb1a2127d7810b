"""Imports between and inside the packages point one way; each module has its test."""

import ast
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / "tlkit"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From left to right: a package imports only itself and those before it.
ORDER = [
    "errors",
    "files",
    "progress",
    "launching",
    "sources",
    "encoders",
    "data",
    "tasks",
    "models",
    "reports",
    "training",
    "serving",
    "samples",
    "cli",
    "launch",
]
# The same inside the packages. "." stands for the modules at the top of the package.
INNER_ORDER = {
    "data": ["images", "augmentation", "examples", "shards", "loaders", "."],
    "encoders": ["graph", "saved_model", "network", ".", "inference"],
    "models": ["text", "."],
    "samples": ["networks", "."],
    "sources": ["store", "catalog", "download", "."],
    "training": [
        "strategies",
        "feeds",
        "plans",
        "loop",
        "checkpoints",
        "activations",
        ".",
    ],
}
# Modules that are imported from outside their top package although no `__init__`
# exports what is imported.
DEEP_IMPORTS: set[str] = set()


def is_package(parts):
    return (PACKAGE.joinpath(*parts) / "__init__.py").is_file()


def is_module(parts):
    return PACKAGE.joinpath(*parts).with_suffix(".py").is_file() or is_package(parts)


def imports_of(path):
    """Yields what a file imports from tlkit, as paths of modules below tlkit."""
    package = ["tlkit", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".") if node.module else []
            base = package[: len(package) + 1 - node.level] if node.level else []
            names = [[*base, *module, alias.name] for alias in node.names]
        else:
            continue
        for root, *parts in names:
            if root == "tlkit" and parts:
                # What an `__init__` exports may have the name of a module beside it.
                exported = parts[:-1] and is_package(parts[:-1])
                exported = exported and parts[-1] in exports_of(parts[:-1])
                yield parts if is_module(parts) and not exported else parts[:-1]


def exports_of(parts):
    tree = ast.parse((PACKAGE.joinpath(*parts) / "__init__.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def parts_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return list(parts[:-1] if parts[-1] == "__init__" else parts)


def section_of(parts):
    """Returns the sub-package in which a module of a package stands, or "."."""
    inner = parts[1:2]
    return inner[0] if inner and is_package(parts[:2]) else "."


def parametrize_modules(function):
    names = lambda path: str(path.relative_to(PACKAGE))
    return pytest.mark.parametrize("path", MODULES, ids=names)(function)


def test_every_module_belongs_to_a_package_of_the_order():
    assert {parts[0] for parts in map(parts_of, MODULES) if parts} == set(ORDER)


@parametrize_modules
def test_imports_point_to_the_left(path):
    parts = parts_of(path)
    if not parts or parts[0] in ("cli", "launch"):
        return
    allowed = ORDER[: ORDER.index(parts[0]) + 1]
    targets = [target for target in imports_of(path) if target]
    assert not [target for target in targets if target[0] not in allowed]
    inner = INNER_ORDER.get(parts[0])
    if inner is None or len(parts) == 1:  # an `__init__` exports from everywhere
        return
    allowed = inner[: inner.index(section_of(parts)) + 1]
    inside = [target for target in targets if target[0] == parts[0] and target[1:]]
    assert not [target for target in inside if section_of(target) not in allowed]


@parametrize_modules
def test_other_packages_are_imported_from_what_they_export(path):
    parts = parts_of(path)
    deep = {
        "/".join(target)
        for target in imports_of(path)
        if target[:1] != parts[:1] and len(target) > 1 and not is_package(target)
    }
    assert deep <= DEEP_IMPORTS


@parametrize_modules
def test_modules_are_small(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.name != "utils.py"


@parametrize_modules
def test_each_module_has_a_test_file_or_names_one(path):
    parts = parts_of(path)
    if path.name == "__init__.py":
        assert ast.get_docstring(ast.parse(path.read_text()))
        return
    twin = TESTS.joinpath(*parts[:-1], f"test_{parts[-1]}.py")
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    named = re.findall(r"tests/[\w/]+\.py", docstring)
    assert twin.is_file() or named
    assert all((TESTS.parent / name).is_file() for name in named)


def test_nothing_else_stands_at_the_top():
    allowed = {"README.md", "LICENSE", "pyproject.toml", "setup.cfg", "tlkit", "tests"}
    allowed |= {"colab", "saved_models"}
    allowed |= {"runs", "build", "dist"}  # which git ignores
    names = {path.name for path in PACKAGE.parent.iterdir()}
    names = {name for name in names if not name.startswith(".")}
    assert {name for name in names if not name.endswith(".egg-info")} <= allowed
