"""Options as JSON has them: in a run's `config.json`, or in a file of the user's."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from gss_train.common import UserError
from gss_train.config.options import KINDS, SECTION_OF, Config, flag_of, make_config, with_defaults
from gss_train.config.presets import preset_options

CONFIG_FILE = "config.json"
"""The settings of a run, in its folder."""
ENVIRONMENT_FILE = "environment.json"
"""What a run computes with, in its folder."""

_MAX_SHOWN = 200
_SCALARS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a finite number"),
    str: (str, "a text"),
    Path: (str, "a path as text"),
}


def config_from_json(values: object, source: Path | str) -> Config:
    """The tree from what `Config.to_json` gave, or a part of it.

    What is missing has the value that the preset named by `run.preset` gives it, for `network.network` and
    `data.dataset`; without any of these it is that of `--preset auto` or RFNet. Only `data.dataset` cannot be missing.

    Args:
        values: as `json.loads` reads them.
        source: where they are from, for messages.

    Raises:
        UserError: an unknown key, or a value of a wrong type or out of range.
    """
    stated = read_options(values, source)
    if "dataset" not in stated:
        raise UserError(f"{source}: data.dataset (--dataset): is missing")
    preset = preset_options(stated)
    return make_config({**preset, **stated, "preset": preset["preset"]}, source)


def load_options(path: Path) -> dict[str, Any]:
    """What a file states, by name: of the right types, but perhaps out of range.

    Raises:
        UserError: it cannot be read, or has an unknown key or a value of a wrong type.
    """
    values = _load(path, "--config")
    if isinstance(values, dict) and path.name == CONFIG_FILE and (path.parent / ENVIRONMENT_FILE).exists():
        # That of a run says all that there was to say.
        values = with_defaults(values)
    return read_options(values, path)


def load_settings(path: Path) -> dict[str, Any]:
    """The settings of a run from its file, by name, with those that there were not yet then; unknown ones are left out.

    Raises:
        UserError: it cannot be read, or has a value of a wrong type.
    """
    values = _load(path, "--output")
    if not isinstance(values, dict):
        raise UserError(f"--output: {path} is damaged: need an object of sections of options; take another --output")
    known = {
        section: {name: value for name, value in options.items() if name in KINDS[section]}
        if isinstance(options, dict)
        else options
        for section, options in with_defaults(values).items()
        if section in KINDS
    }
    return read_options(known, path)


def _load(path: Path, flag: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise UserError(f"{flag}: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{flag}: {path} is not JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"key {name!r} is there twice")
        values[name] = value
    return values


def read_options(values: object, source: Path | str) -> dict[str, Any]:
    """The options that JSON values state, by name: of the right types, but perhaps out of range.

    Raises:
        UserError: an unknown key, or a value of a wrong type; the message lists all of them.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: got {show_value(values)}, need an object with the sections {', '.join(KINDS)}")
    faults: list[str] = []
    stated: dict[str, Any] = {}
    for section, options in values.items():
        if section not in KINDS:
            faults.append(f"unknown section {section!r}, need one of {', '.join(KINDS)}")
            continue
        if not isinstance(options, dict):
            faults.append(f"{section}: got {show_value(options)}, need an object of options")
            continue
        for name, value in options.items():
            kind = KINDS[section].get(name)
            if kind is None:
                faults.append(f"{section}.{name}: unknown option{_hint(section, name)}")
                continue
            try:
                stated[name] = _read_value(kind, value)
            except TypeError:
                need = _describe_kind(kind)
                faults.append(f"{section}.{name} ({flag_of(name)}): got {show_value(value)}, need {need}")
    if faults:
        raise UserError("\n".join(f"{source}: {fault}" for fault in faults))
    return stated


def _hint(section: str, name: str) -> str:
    if name in SECTION_OF:
        return f" here; {flag_of(name)} belongs to {SECTION_OF[name]}"
    similar = difflib.get_close_matches(name, KINDS[section], n=1)
    if similar:
        return f"; meant may be {similar[0]!r} ({flag_of(similar[0])})"
    return f", need one of {', '.join(KINDS[section])}"


def _read_value(kind: Any, value: Any) -> Any:
    """A value of an option's type from a JSON value; `TypeError` if it is of another type."""
    parts = get_args(kind)
    if NoneType in parts:
        return None if value is None else _read_value(parts[0], value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            raise TypeError
        return tuple(_read_value(parts[0], part) for part in value)
    if get_origin(kind) is Literal:
        fits = value in parts
    else:
        # JSON's true is no number, though Python's is.
        fits = isinstance(value, _SCALARS[kind][0]) and isinstance(value, bool) == (kind is bool)
    if not fits or (kind is float and not abs(value) <= sys.float_info.max) or (kind is Path and not value):
        raise TypeError
    return kind(value) if kind in {float, Path} else value


def _describe_kind(kind: Any) -> str:
    """What a JSON value of an option's type is."""
    parts = get_args(kind)
    if NoneType in parts:
        return f"{_describe_kind(parts[0])} or null"
    if get_origin(kind) is tuple:
        count = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return f"a list of {count}items, each {_describe_kind(parts[0])}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(json.dumps, parts))}"
    return _SCALARS[kind][1]


def show_value(value: object) -> str:
    """For messages: a value as JSON, shortened where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
