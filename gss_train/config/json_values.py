"""Values of options as JSON has them."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_MAX_SHOWN = 200
_NAMES = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", Path: "a path as text"}


def read_value(kind: Any, value: Any) -> Any:
    """A value of an option's type from a JSON value.

    Raises:
        TypeError: it is of another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else read_value(inner, value)
    if origin is Literal:
        return _accept(value, isinstance(value, str) and value in arguments)
    if origin is tuple:
        return _read_tuple(arguments, value)
    return _read_scalar(kind, value)


def _read_scalar(kind: Any, value: Any) -> Any:
    if kind is Path:
        return Path(_accept(value, isinstance(value, str) and value != ""))
    # JSON's true is no number, though Python's is.
    is_bool = isinstance(value, bool)
    if kind is int:
        return _accept(value, isinstance(value, int) and not is_bool)
    if kind is float:
        _accept(value, isinstance(value, int | float) and not is_bool)
        return float(_accept(value, abs(value) <= sys.float_info.max))
    assert kind in {bool, str}, f"no JSON form is known for options of {kind}"
    return _accept(value, isinstance(value, kind))


def _read_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _accept(value, isinstance(value, list))
    item, *others = arguments
    _accept(value, others == [Ellipsis] or len(value) == len(arguments))
    return tuple(read_value(item, part) for part in value)


def _accept(value: Any, condition: bool) -> Any:
    if not condition:
        raise TypeError
    return value


def describe_type(kind: Any) -> str:
    """What a JSON value of an option's type is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return " or ".join(describe_type(part) for part in arguments if part is not types.NoneType) + " or null"
    if origin is Literal:
        return f"one of {', '.join(map(json.dumps, arguments))}"
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {count}items, each {describe_type(arguments[0])}"
    return _NAMES[kind]


def show_value(value: object) -> str:
    """For messages: a value as JSON, shortened where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
