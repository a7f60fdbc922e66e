"""The tables of a report, as the page's template takes them, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gss_train.evaluation import (
    MEASURES,
    comparable_split,
    describe_origin,
    interval_of,
    published_remark,
    published_rows,
)
from gss_train.report.comparison import Difference, Group
from gss_train.report.figures.style import HEAT, heat, text_colour
from gss_train.report.runs import ReportedRun

# Smaller differences than this never look large.
LEAST_LARGEST = 0.02
_MB_PER_GB = 1e3
_BLUE, _ORANGE = np.array([33, 102, 172]) / 255, np.array([200, 96, 8]) / 255


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


@dataclass(frozen=True)
class SubsetTable:
    """A table with a column for each subset of the modalities, and one for their mean.

    Attributes:
        title: says what the numbers are.
        subsets: one flag per modality for each.
        regions: for each region a row of cells for each label.
    """

    title: str
    subsets: tuple[tuple[bool, ...], ...]
    regions: dict[str, dict[str, list[Cell]]]


def score_tables(groups: Sequence[Group]) -> list[SubsetTable]:
    """For each measure that a group has, the means of all groups with the same regions and subsets as the first."""
    alike = [group for group in groups if group.columns == groups[0].columns]
    names, subsets = groups[0].columns
    tables = []
    for measure, described in MEASURES.items():
        means = {group.label: mean.T for group in alike if (mean := group.mean_of(measure)) is not None}
        if not means:
            continue
        doubts = {group.label: _uncertainty(group, measure) for group in alike if group.label in means}
        regions: dict[str, dict[str, list[Cell]]] = {}
        for place, name in enumerate(names):
            shares = heat(np.stack([mean[place] for mean in means.values()]), measure)
            regions[name] = {
                label: [
                    Cell(described.show(value, 1), below, _heat_style(share))
                    for value, below, share in zip(means[label][place], doubts[label][place], row, strict=True)
                ]
                for label, row in zip(means, shares, strict=True)
            }
        tables.append(SubsetTable(described.title, subsets, regions))
    return tables


def origin_rows(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """How the scores of each group came about: what is told, and a text for each group; none says nothing of it."""
    told = [describe_origin(group.first.evaluation) for group in groups]
    return [(name, [one.get(name, "") for one in told]) for name in dict.fromkeys(name for one in told for name in one)]


@dataclass(frozen=True)
class PublishedTable:
    """The means of a group over the subsets, and published ones on the same subjects.

    Attributes:
        title: says what the numbers are.
        remark: what has to be known of them.
        columns: titles of the cells.
        rows: the group's first; each has a name, its cells and its source.
    """

    title: str
    remark: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[Cell], str]]


def published_tables(groups: Sequence[Group]) -> list[PublishedTable]:
    """For each group whose scores are comparable with published averages."""
    tables = []
    for group in groups:
        (split, *others) = {comparable_split(run.evaluation) for run in group.runs}
        means = group.mean_of("dice")
        if split is None or others or means is None:
            continue
        own, evaluation = means[-1].tolist(), group.first.evaluation
        rows = [(group.label, [Cell(MEASURES["dice"].show(mean, 2)) for mean in own], "own")]
        rows += [
            (row.network, [*(Cell(*texts) for texts in row.cells), Cell("")], row.source)
            for row in published_rows(evaluation.dataset.name, own)
        ]
        title = f"{group.label} beside published averages: Dice (%), mean of 15 subsets, {split.title}"
        tables.append(PublishedTable(title, published_remark(evaluation), group.columns[0], rows))
    return tables


def _uncertainty(group: Group, measure: str) -> list[list[str]]:
    """For each region and column: of several runs the standard deviation, of one the interval over its subjects."""
    spread = group.spread_of(measure)
    if spread is not None:
        return [[f"± {MEASURES[measure].show(value, 1)}" for value in row] for row in spread.T.tolist()]
    low, high = interval_of(group.first.evaluation.scores, measure)
    return [
        [_range(a, b, measure) for a, b in zip(*ends, strict=True)]
        for ends in zip(low.T.tolist(), high.T.tolist(), strict=True)
    ]


def _range(low: float, high: float, measure: str = "dice", *, signed: bool = False) -> str:
    ends = [MEASURES[measure].show(value, 1, signed=signed) for value in (low, high)]
    return "" if "-" in ends else " to ".join(ends)


def difference_table(difference: Difference) -> SubsetTable:
    """Differences in per cent with their intervals; those whose interval excludes 0 are marked."""
    largest = max(float(np.nanmax(np.abs(difference.mean), initial=0)), LEAST_LARGEST)
    names, subsets = difference.reference.columns
    columns = (difference.mean, difference.low, difference.high, difference.is_clear)
    regions = {}
    for place, name in enumerate(names):
        cells = []
        for mean, low, high, clear in zip(*(values[:, place].tolist() for values in columns), strict=True):
            text = MEASURES["dice"].show(mean, 1, signed=True)
            cells.append(Cell(text, _range(low, high, signed=True), difference_style(mean, largest), clear))
        regions[name] = {"": cells}
    return SubsetTable(MEASURES["dice"].title, subsets, regions)


def _heat_style(share: float) -> str:
    """Colours from dark blue for 0, the worst, to yellow for 1, the best."""
    return "" if math.isnan(share) else _style(HEAT(share)[:3])


def difference_style(value: float, largest: float) -> str:
    """Colours from orange for losses over white to blue for gains."""
    if math.isnan(value):
        return ""
    share = min(abs(value) / largest, 1.0)
    return _style((1 + share * ((_BLUE if value > 0 else _ORANGE) - 1)).tolist())


def _style(colour: Sequence[float]) -> str:
    red, green, blue = (round(255 * part) for part in colour)
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{text_colour(colour)}"


def speed_rows(runs: Sequence[ReportedRun]) -> list[dict[str, str]]:
    """How fast each run was, what memory it took, and where it ran."""
    rows = []
    for run in runs:
        speeds = [record.samples_per_second for record in run.steps]
        evaluated = run.evaluation.settings.get("seconds")
        device = run.environment.get("gpu") or f"CPU, {run.environment.get('threads', 'unknown')} threads"
        rows.append(
            {
                "name": run.name,
                "steps": str(run.epochs[-1].step) if run.epochs else "-",
                "time": "-" if run.seconds is None else _duration(run.seconds),
                "speed": f"{median(speeds):.2f}" if speeds else "-",
                "memory": f"{max(r.peak_memory_mb for r in run.steps) / _MB_PER_GB:.2f}" if run.steps else "-",
                "evaluation": "-" if evaluated is None else _duration(evaluated),
                "device": device if run.environment else "-",
            }
        )
    return rows


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def setting_rows(groups: Sequence[Group]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """The settings that differ between groups, with each one's value, and those that all have."""
    first = [group.first for group in groups if group.first.settings]
    names = list(dict.fromkeys(name for run in first for name in run.settings))
    different, common = [], []
    for name in names:
        values = [_show(run.settings.get(name)) for run in first]
        if name in {"run.output", "run.seed"}:
            continue
        if len(set(values)) > 1:
            different.append((name, values))
        else:
            common.append((name, values[0]))
    return different, common


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
