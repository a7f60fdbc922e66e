"""The tables of a report, as the page's template takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gss_train.data import MODALITIES
from gss_train.evaluation import MEASURES, TITLES, interval_of
from gss_train.report.cells import Cell, difference_style, heat_style, number
from gss_train.report.comparison import Difference, Floats, Group
from gss_train.report.runs import ReportedRun

_LOWER_IS_BETTER = {"hd95_mm"}
# Smaller differences than this never look large.
_LEAST_LARGEST = 0.02
_MB_PER_GB = 1e3


@dataclass(frozen=True)
class Row:
    """A labelled row of cells."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class RegionRows:
    """The rows of one region."""

    region: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class SubsetTable:
    """A table with a column for each subset of the modalities, and one for their mean.

    Attributes:
        title: says what the numbers are.
        circles: for each modality a row that says which columns have it.
        regions: the rows.
    """

    title: str
    circles: tuple[tuple[str, tuple[bool, ...]], ...]
    regions: tuple[RegionRows, ...]


def score_tables(groups: Sequence[Group]) -> list[SubsetTable]:
    """For each measure that a group has, the means of all groups with the same regions and subsets as the first."""
    scores = groups[0].first.evaluation.scores
    columns = (scores.names, scores.subsets)
    alike = [group for group in groups if _columns(group) == columns]
    tables = []
    for measure in MEASURES:
        means = {group.label: mean for group in alike if (mean := group.mean_of(measure)) is not None}
        measured = [group for group in alike if group.label in means]
        if measured:
            rows = [
                RegionRows(name, tuple(_score_row(group, measure, means, place) for group in measured))
                for place, name in enumerate(scores.names)
            ]
            tables.append(SubsetTable(TITLES[measure], _circles(scores.subsets), tuple(rows)))
    return tables


def _columns(group: Group) -> tuple[tuple[str, ...], tuple[tuple[bool, ...], ...]]:
    scores = group.first.evaluation.scores
    return scores.names, scores.subsets


def _score_row(group: Group, measure: str, means: dict[str, Floats], place: int) -> Row:
    values = means[group.label][:, place]
    every = np.concatenate([mean[:, place] for mean in means.values()])
    reverse = measure in _LOWER_IS_BETTER
    lowest, highest = float(np.nanmin(every)), float(np.nanmax(every))
    return Row(
        group.label,
        tuple(
            Cell(number(value, measure), below, heat_style(value, lowest, highest, reverse=reverse))
            for value, below in zip(values.tolist(), _uncertainty(group, measure, place), strict=True)
        ),
    )


def _uncertainty(group: Group, measure: str, place: int) -> list[str]:
    """Of several runs the standard deviation, of one the interval over its subjects."""
    spread = group.spread_of(measure)
    if spread is not None:
        return [f"± {number(value, measure)}" for value in spread[:, place].tolist()]
    low, high = interval_of(group.first.evaluation.scores, measure)
    return [_range(a, b, measure) for a, b in zip(low[:, place].tolist(), high[:, place].tolist(), strict=True)]


def _range(low: float, high: float, measure: str, *, signed: bool = False) -> str:
    ends = [number(value, measure, signed=signed) for value in (low, high)]
    return "" if "-" in ends else " to ".join(ends)


def _circles(subsets: Sequence[Sequence[bool]]) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    return tuple((name, tuple(subset[place] for subset in subsets)) for place, name in enumerate(MODALITIES))


def difference_table(difference: Difference) -> SubsetTable:
    """Differences in per cent with their intervals; those whose interval excludes 0 are marked."""
    scores = difference.reference.first.evaluation.scores
    largest = max(float(np.nanmax(np.abs(difference.mean), initial=0)), _LEAST_LARGEST)
    regions = []
    for place, name in enumerate(scores.names):
        columns = zip(difference.mean, difference.low, difference.high, difference.is_clear, strict=True)
        cells = [
            Cell(
                number(mean[place], "dice", signed=True),
                _range(low[place], high[place], "dice", signed=True),
                difference_style(mean[place], largest),
                bool(clear[place]),
            )
            for mean, low, high, clear in columns
        ]
        regions.append(RegionRows(name, (Row("", tuple(cells)),)))
    return SubsetTable(TITLES["dice"], _circles(scores.subsets), tuple(regions))


def summary_rows(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """For each comparison and region the mean difference over the subsets, in words for the page's beginning."""
    return [
        {
            "other": difference.other.label,
            "reference": difference.reference.label,
            "pairs": difference.pairs,
            "subjects": difference.subjects,
            "regions": [
                {
                    "name": name,
                    "mean": number(difference.mean[-1, place], "dice", signed=True),
                    "range": _range(difference.low[-1, place], difference.high[-1, place], "dice", signed=True),
                    "spread": None if difference.spread is None else number(difference.spread[-1, place], "dice"),
                    "excludes_zero": bool(difference.is_clear[-1, place]),
                }
                for place, name in enumerate(difference.reference.first.evaluation.scores.names)
            ],
        }
        for difference in differences
    ]


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


def subject_rows(run: ReportedRun) -> list[tuple[str, list[str]]]:
    """Each subject's Dice by region: the mean over its subsets."""
    scores = run.evaluation.scores
    means = scores.dice.nanmean(dim=1).tolist()
    return [
        (subject, [number(value, "dice") for value in values])
        for subject, values in zip(scores.subjects, means, strict=True)
    ]
