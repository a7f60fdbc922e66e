"""Results of a run, and their tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EAGER, COMPILED, PUBLISHED, PLAIN, PAPER = "eager", "torch.compile", "published steps", "plain", "paper"
WHOLE_PASSES, ONE_PROCESS = "15 passes", "one process"

RATIOS = {
    "times_faster_than_eager": EAGER,
    "times_faster_than_torch_compile": COMPILED,
    "times_faster_than_published_steps": PUBLISHED,
    "times_faster_than_plain": PLAIN,
    "times_faster_than_paper": PAPER,
    "times_faster_than_whole_passes": WHOLE_PASSES,
    "times_faster_than_one_process": ONE_PROCESS,
}
"""The figures that compare a result with another one of its group: that one's name."""
_MEMORY = ("peak_extra_mb", "resident_growth_mb")


@dataclass(frozen=True)
class Result:
    """One benchmark.

    Attributes:
        group: benchmarks that are compared with each other.
        name: within the group.
        figures: what was measured, `wall_ms` and on a GPU `gpu_ms` among it.
    """

    group: str
    name: str
    figures: dict[str, float]


def ratios(results: Iterable[Result], result: Result) -> dict[str, float]:
    """How many times faster than what its group is compared with, as far as measured, and its share of memory."""
    others = {other.name: other for other in results if other.group == result.group and other.name != result.name}
    speed = {figure: _speed(others[name], result) for figure, name in RATIOS.items() if name in others}
    return speed | {
        f"percent_of_{name}_{figure.removesuffix('_mb')}": 100 * result.figures[figure] / others[name].figures[figure]
        for name in (PLAIN, PAPER)
        if name in others
        for figure in _MEMORY
        if figure in others[name].figures and figure in result.figures
    }


def with_ratios(results: list[Result]) -> list[Result]:
    """The results, in whatever order they were measured, with how they compare."""
    return [Result(own.group, own.name, own.figures | ratios(results, own)) for own in results]


def _speed(other: Result, result: Result) -> float:
    """By the GPU's own time if both have one, else by the wall time."""
    clock = "gpu_ms" if "gpu_ms" in other.figures and "gpu_ms" in result.figures else "wall_ms"
    return other.figures[clock] / result.figures[clock]


def tables(results: list[Result]) -> list[str]:
    """Lines of one table per group, for the terminal."""
    lines: list[str] = []
    for group in dict.fromkeys(result.group for result in results):
        cells = group_cells(results, group)
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += [group, *("  " + _line(row, widths) for row in cells), ""]
    return lines


def group_cells(results: Iterable[Result], group: str) -> list[list[str]]:
    """A row of titles, and one for each result of the group."""
    rows = [result for result in results if result.group == group]
    titles = list(dict.fromkeys(title for row in rows for title in row.figures))
    cells = [[row.name, *(_rounded(row.figures.get(title)) for title in titles)] for row in rows]
    return [["", *map(_title, titles)], *cells]


def _title(figure: str) -> str:
    if figure in RATIOS:
        return f"{RATIOS[figure]} / this"
    for written, shown in (("gb_per_s", "GB/s"), ("percent_of", "% of"), ("_per_", "/"), ("_mb", " MB"), ("_", " ")):
        figure = figure.replace(written, shown)
    return figure


def _rounded(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _line(cells: list[str], widths: list[int]) -> str:
    name, *numbers = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([name, *numbers]).rstrip()
