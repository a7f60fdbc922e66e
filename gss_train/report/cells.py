"""Numbers of a report's tables: their texts, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib as mpl

_UNSCALED = {"hd95_mm"}
_BLUE, _WHITE, _ORANGE = (33, 102, 172), (255, 255, 255), (200, 96, 8)
_DARK, _LIGHT = "#111111", "#ffffff"
# Where black and white text are read equally well, by the relative luminance of WCAG 2.
_EQUAL_LUMINANCE = 0.179


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        text: the number, a dash where there is none.
        small: more about it, below it.
        style: of its colours, as CSS; empty without.
        clear: whether to mark it.
    """

    text: str
    small: str = ""
    style: str = ""
    clear: bool = False


def scaled(value: float, measure: str) -> float:
    """In per cent, or in millimetres."""
    return value if measure in _UNSCALED else 100 * value


def number(value: float, measure: str, *, signed: bool = False) -> str:
    """A score, or a difference of scores, as text."""
    if math.isnan(value):
        return "-"
    # Rounding first, and adding 0, leaves no minus before a zero.
    rounded = round(scaled(value, measure), 1) + 0.0
    return f"{rounded:{'+' if signed else ''}.1f}".replace("-", "\N{MINUS SIGN}")


def heat_style(value: float, lowest: float, highest: float, *, reverse: bool = False) -> str:
    """Colours from dark blue for the lowest to yellow for the highest value, or the other way round."""
    if math.isnan(value):
        return ""
    share = (value - lowest) / (highest - lowest) if highest > lowest else 1.0
    red, green, blue, _ = mpl.colormaps["cividis"](1 - share if reverse else share)
    return _style((round(255 * red), round(255 * green), round(255 * blue)))


def difference_style(value: float, largest: float) -> str:
    """Colours from orange for losses over white to blue for gains."""
    if math.isnan(value):
        return ""
    share = min(abs(value) / largest, 1.0) if largest > 0 else 0.0
    end = _BLUE if value > 0 else _ORANGE
    red, green, blue = (round(white + share * (colour - white)) for white, colour in zip(_WHITE, end, strict=True))
    return _style((red, green, blue))


def _style(colour: tuple[int, int, int]) -> str:
    background = "#{:02x}{:02x}{:02x}".format(*colour)
    return f"background:{background};color:{_DARK if _luminance(colour) > _EQUAL_LUMINANCE else _LIGHT}"


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance, as WCAG 2 has it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
