"""Imports go one way; each library that wraps a program is called from one room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "course_lib"

#: A room may import from those further right.
ORDER = [
    {"cli"},
    {"runner", "doctor", "bench", "authoring", "cleanup"},
    {"exercises"},
    {"images", "stacks", "cluster"},
    {"host"},
    {"lab"},
    {"reaper"},
    {"ledger"},
    {"kube_rows"},
    {"waits", "shell", "steady_load"},
    {"settings"},
    {"errors"},
]
#: Allowed beside that: authoring executes what it built with the runner's means.
ALSO = {("authoring", "runner")}
WRAPPED = {
    "docker": {"images", "stacks"},
    "kubernetes": {"cluster"},
    "papermill": {"runner"},
    "jupytext": {"authoring"},
    "typer": {"cli"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, `from package import module` resolved to package.module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def level(name: str) -> int:
    return next(number for number, rooms in enumerate(ORDER) if name in rooms)


FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    mine = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "course_lib" or len(parts) < 2:
            continue
        other = parts[1]
        allowed = other == mine or level(other) > level(mine) or (mine, other) in ALSO
        assert allowed, f"{path.name} of {mine} imports {name}; {mine} may import only what stands below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_library_that_wraps_a_program_is_called_from_one_room(path: Path) -> None:
    for name in imports(path):
        rooms = WRAPPED.get(name.split(".")[0])
        assert rooms is None or room(path) in rooms, f"{name} is called from {room(path)}, not from {rooms}"


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room(p) for p in FILES}
    assert rooms == set().union(*ORDER)
