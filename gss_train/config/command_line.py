"""The command line of a training run, made from the dataclasses of its options."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from gss_train.common import UserError
from gss_train.config.changes import options_to_keep
from gss_train.config.json_options import load_options
from gss_train.config.options import KINDS, SECTIONS, Config, make_config, options_of
from gss_train.config.origins import describe_origins
from gss_train.config.presets import Layer, preset_layers


@dataclass(frozen=True)
class _FileOptions:
    """Options from and for a file.

    Attributes:
        config: JSON file in the form of a run's `config.json`, or a part of it; its values become the defaults, which
            flags override. What it lacks has the value of the preset that it names (`run.preset`), or of `auto`. Paths
            in it start from where you are; its `run.output` holds too. Another `--network` or `--dataset` than the
            file's changes nothing else that the file says.
        print_config: print all options that hold, as such a file, and do nothing else. Standard error says of each
            where it is from: a flag, the file, a preset, or who has published it.
    """

    config: Path | None = None
    print_config: bool = False


def parse_config(arguments: Sequence[str] | None = None, *, anew: Collection[str] = ()) -> Config:
    """Read the command line.

    The preset, the file of options and the run in `--output` are looked at first, so that `--help` shows the values
    that hold.

    Args:
        arguments: of the command; None: those of this process.
        anew: names of the options that a run which is gone on with does not keep.

    Raises:
        UserError: an option is out of range or contradicts another, or the file cannot be used.
        SystemExit: with status 2 after a message on standard error for a flag that is unknown or unreadable; with 0
            after `--help` and `--print-config`.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    flags = _flags(arguments)
    file = flags.get("config")
    if file is not None and "preset" in flags:
        raise UserError(f"--preset: cannot go with --config: the preset is the file's, run.preset in {file}")
    stated = {} if file is None else load_options(Path(file))
    layers = preset_layers({**stated, **flags})
    preset = {name: value for layer in layers for name, value in layer.options.items()}
    output = flags.get("output") or stated.get("output")
    kept = options_to_keep(None if output is None else Path(output), preset, {*stated, *flags})
    kept = {name: value for name, value in kept.items() if name not in anew}
    defaults = {**preset, **kept, **stated}
    if "dataset" not in {**kept, **stated}:
        defaults["dataset"] = tyro.MISSING
    parsed = _parse(defaults, arguments)
    config = make_config({**options_of(parsed), "preset": kept.get("preset", preset["preset"])}, file, flags)
    if parsed.file.print_config:
        print(json.dumps(config.to_json(), indent=2))
        print(
            describe_origins(config, [*layers, Layer(f"run in {output}", kept)], file, stated, flags), file=sys.stderr
        )
        raise SystemExit
    return config


def _flags(arguments: list[str]) -> dict[str, str | None]:
    """The text after each flag, if any, by the option's name; faults are left for tyro to find."""
    flags = {}
    for argument, following in pairwise([*arguments, None]):
        if argument is not None and argument.startswith("--"):
            flag, equals, text = argument.partition("=")
            name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
            flags[name] = text if equals else following
    return flags


def _parse(defaults: Mapping[str, Any], arguments: list[str]) -> Any:
    """A tree of all options, of the right types, but perhaps out of range."""
    sections = {section: _unchecked(kind) for section, kind in SECTIONS.items()}
    tree = dataclasses.make_dataclass(
        "Config",
        [("file", tyro.conf.FlagCreatePairsOff[_FileOptions]), *sections.items()],
        namespace={"__doc__": Config.__doc__},
    )
    chosen = {section: kind(**{name: defaults[name] for name in KINDS[section]}) for section, kind in sections.items()}
    return tyro.cli(
        tree,
        default=tree(_FileOptions(), **chosen),
        args=arguments,
        prog="python -m gss_train.main",
        # Every field is told of in its class: nothing is looked for in the source, which takes half of the time.
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )


def _unchecked(kind: type[Any]) -> type[Any]:
    """A section that takes any values: a file's may be in range only with the flags that go with it."""
    return type(kind.__name__, (kind,), {"__post_init__": lambda _: None, "__doc__": kind.__doc__})
