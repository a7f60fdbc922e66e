"""Which settings may change when a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gss_train.common import UserError
from gss_train.config.json_values import show_value
from gss_train.config.options import Config, DataOptions, flag_of
from gss_train.config.settings import OPTIONS

# Where a run computes, how it loads, how it computes the same numbers (but for rounding), when it gives up, and what it
# writes: neither crops nor weights nor scores depend on these. On each other setting one of them does.
_FREE = {
    *("data.workers", "data.cache"),
    *("run.device", "run.output", "run.preset"),
    "network.activation_checkpointing",
    *("training.compile", "training.channels_last", "training.max_bad_steps"),
    *(f"record.{name}" for name in OPTIONS["record"]),
}

# Files may have moved; but a phantom is not a patient, and a table of one's own not an edition of BraTS.
_MOVABLE = {"data.data_root", "data.manifest"}

_DEFAULTS = Config(DataOptions("brats2020")).to_json()


def refuse_changes(old: dict[str, Any], new: dict[str, Any], source: Path) -> None:
    """Refuse to go on with a run under settings by which it would learn something else.

    Args:
        old: `Config.to_json` of the run; options that it lacks had their default.
        new: that of the settings now.
        source: the file that `old` is from, for messages.

    Raises:
        UserError: settings differ; the message lists their flags with both values.
    """
    before, now = _flat(old, source), _flat(new, source)
    defaults = _flat(_DEFAULTS, source)
    changes = [
        f"  {flag_of(key.partition('.')[2])}: was {show_value(was)}, "
        f"now {show_value(now[key]) if key in now else 'unknown'}"
        for key, was in {**defaults, **before}.items()
        if key not in now or _differ(key, was, now[key])
    ]
    if changes:
        raise UserError(
            f"--output: the run in {source.parent} has other settings ({source.name}), and would learn something "
            "else:\n" + "\n".join(changes) + "\ngive it the settings that it had, or take another --output for these"
        )


def _flat(settings: Any, source: Path) -> dict[str, Any]:
    if not isinstance(settings, dict) or not all(isinstance(options, dict) for options in settings.values()):
        raise UserError(f"--output: {source} is damaged: need an object of sections of options; take another --output")
    return {f"{section}.{name}": value for section, options in settings.items() for name, value in options.items()}


def _differ(key: str, was: Any, now: Any) -> bool:
    if key in _FREE:
        return False
    if key in _MOVABLE:
        return (was is None) != (now is None)
    return bool(_per_axis(was) != _per_axis(now))


def _per_axis(value: Any) -> Any:
    """One length stands for three that are equal."""
    return value * 3 if isinstance(value, list) and len(value) == 1 else value
