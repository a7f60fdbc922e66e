"""The rooms of `gss_train`: arrows point one way, and go through doors."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2] / "gss_train"
# Each may use what stands in a line below its own.
FLOORS = (
    ("commands",),
    ("training", "report"),
    ("evaluation",),
    ("inference",),
    ("runs",),
    ("subjects",),
    ("config",),
    ("phantom",),
    ("data", "models"),
    ("common",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(FLOOR_OF.keys() - {"commands"})
COMMANDS = {"main.py", "prepare.py", "evaluate.py", "predict.py", "experiment.py"}


def room_of(path: Path) -> str:
    parts = path.relative_to(HOUSE).parts
    return parts[0] if len(parts) > 1 else "commands"


def rooms_in(module: str, names: list[str]) -> list[str]:
    """Those that an import names."""
    return names if module == "gss_train" else [module.split(".")[1]]


def imports() -> Iterator[tuple[Path, int, str, list[str]]]:
    """Every import of the house by the house: file, line, module and names; those for types alone are arrows too."""
    for path in sorted(HOUSE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                assert node.level == 0, f"{path}: has a relative import"
                if node.module.partition(".")[0] == "gss_train":
                    yield path, node.lineno, node.module, [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == "gss_train":
                        yield path, node.lineno, alias.name, []


def test_nothing_is_loose_but_the_commands() -> None:
    assert {path.name for path in HOUSE.glob("*.py")} == {"__init__.py", *COMMANDS}
    assert {path.parent.name for path in HOUSE.glob("*/__init__.py")} == set(ROOMS)


def test_arrows_point_one_way() -> None:
    for path, line, module, names in imports():
        own = room_of(path)
        for other in rooms_in(module, names):
            assert own == other or FLOOR_OF[own] < FLOOR_OF[other], f"{path}:{line}: {own} may not use {other}"


def test_arrows_go_through_doors() -> None:
    for path, line, module, names in imports():
        if module in {"gss_train", "gss_train.common.doors"}:
            continue
        own, (_, other, *inside) = room_of(path), module.split(".")
        if own == other:
            continue
        assert not inside, f"{path}:{line}: reaches past the door of {other}, to {module}"
        door = importlib.import_module(f"gss_train.{other}").__all__
        assert set(names) <= set(door), f"{path}:{line}: the door of {other} has no {', '.join(set(names) - set(door))}"


def test_no_file_needs_another_that_needs_it() -> None:
    files = {".".join(path.relative_to(HOUSE.parent).with_suffix("").parts): path for path in HOUSE.rglob("*.py")}
    needed: dict[str, set[str]] = {module: set() for module in files}
    for path, _, module, names in imports():
        own = ".".join(path.relative_to(HOUSE.parent).with_suffix("").parts)
        needed[own] |= {target for target in (module, *(f"{module}.{name}" for name in names)) if target in files}
    while needed:
        free = {module for module, others in needed.items() if not others}
        assert free, f"these files need each other: {', '.join(sorted(needed))}"
        needed = {module: others - free for module, others in needed.items() if module not in free}


def test_every_name_that_the_pages_give_is_there() -> None:
    pages = [HOUSE.parent / "README.md", *(HOUSE.parent / "docs").glob("*.md")]
    named = {name for page in pages for name in re.findall(r"\bgss_train(?:\.\w+)+", page.read_text(encoding="utf-8"))}
    assert named
    for name in named:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("room", ROOMS)
def test_all_names_of_a_door_are_there(room: str) -> None:
    door = importlib.import_module(f"gss_train.{room}")
    files = {path.stem for path in (HOUSE / room).iterdir()}
    assert not files & set(door.__all__), "a file would hide the name"
    for name in door.__all__:
        assert getattr(door, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = door.nonsense
