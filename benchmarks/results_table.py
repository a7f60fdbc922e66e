"""Results of a run, and their tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

EAGER, PUBLISHED = "eager", "published steps"


@dataclass(frozen=True)
class Result:
    """One benchmark.

    Attributes:
        group: benchmarks that are compared with each other.
        name: within the group.
        seconds: best wall time of a call.
        figures: further measurements.
    """

    group: str
    name: str
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)


def times_faster(results: Iterable[Result], result: Result, yardstick: str) -> float | None:
    """Wall time of the benchmark `yardstick` of the same group over that of `result`; None if it was not run."""
    for other in results:
        if (other.group, other.name) == (result.group, yardstick):
            return other.seconds / result.seconds
    return None


def tables(results: list[Result]) -> list[str]:
    """Lines of one table per group; ratios to the plain formulations in the groups that have them."""
    lines: list[str] = []
    for group in dict.fromkeys(result.group for result in results):
        rows = [_cells(results, result) for result in results if result.group == group]
        titles = list(dict.fromkeys(title for row in rows for title in row))
        cells = [titles, *([row.get(title, "") for title in titles] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += [group, *("  " + _line(row, widths) for row in cells), ""]
    return lines


def _cells(results: list[Result], result: Result) -> dict[str, str]:
    cells = {"": result.name, "best ms": f"{result.seconds * 1e3:.2f}"}
    for yardstick in (EAGER, PUBLISHED):
        ratio = times_faster(results, result, yardstick)
        if ratio is not None:
            cells[f"{yardstick} / this"] = f"{ratio:.2f}"
    return cells | {name.replace("_", " "): _rounded(value) for name, value in result.figures.items()}


def _rounded(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _line(row: list[str], widths: list[int]) -> str:
    name, *numbers = row
    cells = [name.ljust(widths[0])]
    cells += [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
    return "   ".join(cells)
