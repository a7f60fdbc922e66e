"""Which options may change when a run goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gss_train.common import UserError
from gss_train.config.json_options import CONFIG_FILE, load_settings, show_value
from gss_train.config.options import KINDS, flag_of, with_defaults

# Where a run computes, how it loads, how it computes the same numbers (but for rounding), when it gives up, and what it
# writes: neither crops nor weights nor scores depend on these. On each other option one of them does.
_FREE = {
    *("workers", "cache", "device", "output", "preset", "protocol", "ignore_resources"),
    *("activation_checkpointing", "compile", "channels_last", "deterministic", "max_bad_steps"),
    "stage_validation",
    *KINDS["record"],
}

# Files may have moved; but a phantom is not a patient, and a table of one's own not an edition of BraTS.
_MOVABLE = {"data_root", "manifest"}

# What decides over the defaults of many options.
_DECIDING = ("preset", "protocol", "network")


def options_to_keep(output: Path | None, wanted: Mapping[str, Any], stated: Collection[str]) -> dict[str, Any]:
    """The options of the run in a folder, by name: where nobody states them, it goes on with what it has.

    Args:
        output: the folder.
        wanted: all options that would hold if there were no run.
        stated: names of those that are no defaults.

    Returns:
        Nothing where there is no run, or another preset, protocol or network is stated: then it is another one.

    Raises:
        UserError: the run's settings are damaged.
    """
    source = Path() if output is None else output / CONFIG_FILE
    if output is None or not source.exists():
        return {}
    begun = load_settings(source)
    if any(name in stated and wanted[name] != begun[name] for name in _DECIDING):
        return {}
    return {name: value for name, value in begun.items() if name not in {"output", "resume"}}


def refuse_changes(old: dict[str, Any], new: dict[str, Any], source: Path) -> None:
    """Refuse to go on with a run with options by which it would learn something else.

    Args:
        old: `Config.to_json` of the run; options that it lacks are those of `with_defaults`.
        new: that of what is wanted now.
        source: the file that `old` is from, for messages.

    Raises:
        UserError: options differ; the message lists their flags with both values.
    """
    before, now = _by_name(with_defaults(old) if isinstance(old, dict) else old, source), _by_name(new, source)
    changes = [
        f"  {flag_of(name)}: was {show_value(was)}, now {show_value(now[name]) if name in now else 'unknown'}"
        for name, was in before.items()
        if name not in now or _differ(name, was, now[name])
    ]
    if changes:
        raise UserError(
            f"--output: the run in {source.parent} has other settings ({source.name}), and would learn something "
            "else:\n" + "\n".join(changes) + "\ngive it the settings that it had, or take another --output for these"
        )


def _by_name(tree: Any, source: Path) -> dict[str, Any]:
    if not isinstance(tree, dict) or not all(isinstance(options, dict) for options in tree.values()):
        raise UserError(f"--output: {source} is damaged: need an object of sections of options; take another --output")
    return {name: value for options in tree.values() for name, value in options.items()}


def _differ(name: str, was: Any, now: Any) -> bool:
    if name in _MOVABLE:
        return (was is None) != (now is None)
    return name not in _FREE and bool(_per_axis(was) != _per_axis(now))


def _per_axis(value: Any) -> Any:
    """One length stands for three that are equal."""
    return value * 3 if isinstance(value, list) and len(value) == 1 else value
