"""The rooms import only what stands left of them, and stay small."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "tlkit"

# From left to right; a room imports itself and rooms before it.
ROOMS = [
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
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path):
    """Rooms of tlkit that a file imports, at the top or inside functions."""
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
        yield from (name[1] for name in names if name[0] == "tlkit" and len(name) > 1)


def test_every_module_stands_in_a_room():
    rooms = {room_of(path) for path in MODULES} - {"__init__"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_left(path):
    room = room_of(path)
    if room in ("__init__", "cli", "launch"):
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    wrong = [name for name in imported_rooms(path) if name not in allowed]
    assert not [name for name in wrong if name in ROOMS], (room, wrong)


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_modules_are_small(path):
    assert len(path.read_text().splitlines()) <= 400
    assert path.name != "utils.py"


def test_nothing_else_stands_at_the_top():
    allowed = {"README.md", "pyproject.toml", "setup.cfg", "tlkit", "tests", "colab"}
    allowed |= {"saved_models", "runs", "build", "dist"}  # the last three: git ignores
    names = {path.name for path in PACKAGE.parent.iterdir()}
    names = {name for name in names if not name.startswith(".")}
    assert {name for name in names if not name.endswith(".egg-info")} <= allowed
