"""Settings by section and name, as a file or a command line states them, and the tree that they make."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import torch

from gss_train.common import UserError
from gss_train.config.json_values import describe_type, read_value, show_value
from gss_train.config.options import Config, DatasetName, NetworkName, flag_of
from gss_train.config.presets import PickedPreset, preset_config

Settings = dict[str, dict[str, Any]]
"""For each section of `Config`, some or all of its options by name."""

SECTIONS: dict[str, type[Any]] = get_type_hints(Config)
OPTIONS: dict[str, dict[str, Any]] = {section: get_type_hints(kind) for section, kind in SECTIONS.items()}
"""For each section, the types of its options by name."""

_SECTION_OF = {name: section for section, options in OPTIONS.items() for name in options}


class SettingsError(UserError):
    """A setting cannot be used; the message names its flag and, if it is from a file, the file and the key."""


def config_from_json(values: object, source: Path | str) -> Config:
    """The tree from what `Config.to_json` gave, or a part of it.

    What is missing has the value that the preset named by `run.preset` gives it, for `network.network` and
    `data.dataset`; without any of these it is that of `--preset auto` or RFNet. Only `data.dataset` cannot be missing.

    Args:
        values: as `json.loads` reads them.
        source: where they are from, for messages.

    Raises:
        SettingsError: an unknown key, or a value of a wrong type or out of range.
    """
    stated = read_settings(values, source)
    preset = preset_for(stated)
    if "dataset" not in stated.get("data", {}):
        raise SettingsError(f"{source}: data.dataset (--dataset): is missing")
    whole = overlay(settings_of(preset), stated)
    whole["run"]["preset"] = preset.run.preset
    return build_config(whole, source)


def load_settings(path: Path) -> Settings:
    """What a JSON file in the form of a run's `config.json` states, of the right types but perhaps out of range.

    Raises:
        SettingsError: it cannot be read, or has an unknown key or a value of a wrong type.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise SettingsError(f"--config: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"--config: {path} is not JSON: {error}") from error
    return read_settings(values, path)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def read_settings(values: object, source: Path | str) -> Settings:
    """Settings from JSON values, of the right types but perhaps out of range.

    Raises:
        SettingsError: an unknown key, or a value of a wrong type; the message lists all of them.
    """
    if not isinstance(values, dict):
        raise SettingsError(
            f"{source}: got {show_value(values)}, need an object with the sections {', '.join(SECTIONS)}"
        )
    faults: list[str] = []
    settings: Settings = {}
    for section, options in values.items():
        if section not in SECTIONS:
            faults.append(f"{source}: unknown section {section!r}, need one of {', '.join(SECTIONS)}")
        elif not isinstance(options, dict):
            faults.append(f"{source}: {section}: got {show_value(options)}, need an object of options")
        else:
            settings[section] = _read_section(section, options, source, faults)
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def _read_section(section: str, options: dict[str, Any], source: Path | str, faults: list[str]) -> dict[str, Any]:
    read = {}
    for name, value in options.items():
        if name not in OPTIONS[section]:
            faults.append(f"{source}: {section}.{name}: unknown option{_hint(section, name)}")
            continue
        kind = OPTIONS[section][name]
        try:
            read[name] = read_value(kind, value)
        except TypeError:
            faults.append(
                f"{source}: {section}.{name} ({flag_of(name)}): got {show_value(value)}, need {describe_type(kind)}"
            )
    return read


def _hint(section: str, name: str) -> str:
    if name in _SECTION_OF:
        return f" here; {flag_of(name)} belongs to {_SECTION_OF[name]}"
    similar = difflib.get_close_matches(name, OPTIONS[section], n=1)
    if similar:
        return f"; meant may be {similar[0]!r} ({flag_of(similar[0])})"
    return f", need one of {', '.join(OPTIONS[section])}"


def settings_of(config: Config) -> Settings:
    """All settings of a tree."""
    return {section: dict(vars(getattr(config, section))) for section in SECTIONS}


def overlay(below: Settings, above: Settings) -> Settings:
    """The settings of both; where both have one, that of `above`."""
    return {section: {**below.get(section, {}), **above.get(section, {})} for section in SECTIONS}


def preset_for(stated: Settings) -> Config:
    """The values of the preset that settings ask for; where they name nothing that is known, of the default."""
    run, data = stated.get("run", {}), stated.get("data", {})
    preset, network = run.get("preset", "auto"), stated.get("network", {}).get("network")
    if preset not in get_args(PickedPreset):
        has_scans = data.get("data_root") is not None or data.get("manifest") is not None
        has_gpu = torch.cuda.is_available() and run.get("device") != "cpu"
        preset = "paper" if has_scans and has_gpu else "quick"
    return preset_config(
        cast("PickedPreset", preset),
        cast("NetworkName", network if network in get_args(NetworkName) else "rfnet"),
        cast("DatasetName", data.get("dataset", "auto")),
    )


def build_config(settings: Settings, source: Path | str | None = None, elsewhere: Collection[str] = ()) -> Config:
    """The tree that all settings together make.

    Args:
        settings: every option of every section.
        source: the file that options are from, None if there is none.
        elsewhere: names of options that are not from the file.

    Raises:
        SettingsError: a value is out of range, or contradicts another.
    """
    try:
        return Config(**{section: kind(**settings[section]) for section, kind in SECTIONS.items()})
    except ValueError as error:
        message = str(error)
        flag = re.match(r"--([a-z0-9-]+)", message)
        name = flag[1].replace("-", "_") if flag else ""
        if source is not None and name in _SECTION_OF and name not in elsewhere:
            message = f"{source}: {_SECTION_OF[name]}.{name}: {message}"
        raise SettingsError(message) from None
