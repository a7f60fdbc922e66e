"""Says of every option where its value is from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from gss_train.config.json_options import show_value
from gss_train.config.options import Config, flag_of
from gss_train.config.presets import Layer


def describe_origins(
    config: Config, layers: Sequence[Layer], file: Path | str | None, in_file: Collection[str], flags: Collection[str]
) -> str:
    """A line for each option with its value and where that is from; below them where the published ones are from.

    Args:
        config: that holds.
        layers: what holds where neither file nor flags say anything; the last one that has an option decides.
        file: of options, if there is one.
        in_file: names of its options.
        flags: names of the options that flags state.
    """
    layer_of = {name: layer for layer in layers for name in layer.options}
    rows = []
    for options in config.to_json().values():
        for name, value in options.items():
            layer = layer_of[name]
            origin = "flag" if name in flags else str(file) if name in in_file else layer.title
            rows.append((flag_of(name), show_value(value), origin))
    flag_width, value_width = (max(len(row[column]) for row in rows) for column in range(2))
    lines = [f"{flag:<{flag_width}}  {value:<{value_width}}  {origin}" for flag, value, origin in rows]
    return "\n".join([*lines, "", *(f"{layer.title}: {layer.source}" for layer in layers if layer.source)])
