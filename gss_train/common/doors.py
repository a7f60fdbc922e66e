"""The door of a room: the names that others may use, imported from the room's files when they are first asked for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def open_door(room: str, init: str) -> tuple[Callable[[str], Any], list[str]]:
    """What the `__init__.py` of a room hands out: the names that the `__init__.pyi` beside it imports.

    A command that says `--help`, or what is wrong with a flag, waits for none of the libraries that its work needs.

    Args:
        room: `__name__` of the `__init__.py`.
        init: its `__file__`.

    Returns:
        Its `__getattr__` and its `__all__`.
    """
    stub = Path(init).with_suffix(".pyi")
    places = {
        alias.name: str(node.module)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(places[name]), name)

    return get, sorted(places)
