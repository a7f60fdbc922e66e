"""The command line of a training run, made from the settings' dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gss_train.config.options import Config
from gss_train.config.settings import (
    OPTIONS,
    SECTIONS,
    Settings,
    SettingsError,
    build_config,
    load_settings,
    overlay,
    preset_for,
    settings_of,
)

_USAGE_ERROR = 2


@dataclass(frozen=True)
class SettingsFile:
    """Settings from and for a file.

    Attributes:
        config: JSON file in the form of a run's `config.json`, or a part of it; its values become the defaults, which
            flags override. What it lacks has the value of the preset that it names (`run.preset`), or of `auto`. Paths
            in it start from where you are; its `run.output` holds too. Another `--network` or `--dataset` than the
            file's changes nothing else that the file says.
        print_config: print all settings that hold, as such a file, and do nothing else.
    """

    config: Path | None = None
    print_config: bool = False


def parse_config(arguments: Sequence[str] | None = None) -> Config:
    """Read the command line.

    The preset and the file of settings are picked first, so that `--help` shows the values that hold.

    Raises:
        ModuleNotFoundError: tyro is not installed.
        SystemExit: with status 2 after a message on standard error for a setting that is unknown, unreadable, out of
            range or contradicts another; with 0 after `--help` and `--print-config`.
    """
    try:
        config, print_config = _parse(sys.argv[1:] if arguments is None else list(arguments))
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(_USAGE_ERROR) from error
    if print_config:
        print(json.dumps(config.to_json(), indent=2))
        raise SystemExit
    return config


def _parse(arguments: list[str]) -> tuple[Config, bool]:
    chosen = _choose(arguments)
    path = chosen.pop("config", None)
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    given = {flag.removeprefix("--").removeprefix("no-").replace("-", "_") for flag in given}
    if path is not None and "preset" in given:
        raise SettingsError(f"--preset: cannot go with --config: the preset is the file's, run.preset in {path}")
    stated = {} if path is None else load_settings(Path(path))
    preset = preset_for(overlay(stated, _by_section(chosen)))
    settings, print_config = _read_flags(
        overlay(settings_of(preset), stated), "dataset" in stated.get("data", {}), arguments
    )
    settings["run"]["preset"] = preset.run.preset
    return build_config(settings, path, given), print_config


def _choose(arguments: list[str]) -> dict[str, str]:
    """What decides over the defaults of all else; faults are left for tyro to find, which says them better."""
    selection = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "preset", "data-root", "manifest", "dataset", "device", "network"):
        selection.add_argument(f"--{name}", f"--{name.replace('-', '_')}", nargs="?")
    chosen, _ = selection.parse_known_args(arguments)
    return {name: value for name, value in vars(chosen).items() if value is not None}


def _by_section(values: dict[str, str]) -> Settings:
    return {
        section: {name: value for name, value in values.items() if name in options}
        for section, options in OPTIONS.items()
    }


def _read_flags(defaults: Settings, has_dataset: bool, arguments: list[str]) -> tuple[Settings, bool]:
    """All settings with those that flags name; of the right types, but perhaps out of range."""
    # Here, so that the settings can be imported where tyro is not installed, as beside the training loop.
    import tyro  # noqa: PLC0415

    if not has_dataset:
        defaults["data"]["dataset"] = tyro.MISSING
    sections = {section: _unchecked(kind) for section, kind in SECTIONS.items()}
    tree = dataclasses.make_dataclass(
        "Config",
        [("settings", tyro.conf.FlagCreatePairsOff[SettingsFile]), *sections.items()],
        namespace={"__doc__": Config.__doc__},
    )
    parsed: Any = tyro.cli(
        tree,
        default=tree(SettingsFile(), **{section: kind(**defaults[section]) for section, kind in sections.items()}),
        args=arguments,
        prog="python -m gss_train.main",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return {section: dict(vars(getattr(parsed, section))) for section in sections}, parsed.settings.print_config


def _unchecked(kind: type[Any]) -> type[Any]:
    """A section that takes any values: a file's may be in range only with the flags that go with it."""
    return type(kind.__name__, (kind,), {"__post_init__": lambda _: None, "__doc__": kind.__doc__})
