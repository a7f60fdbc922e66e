"""Tables of what the vote knew of the validation subjects, as the page's template takes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gss_kernels import ROUTES
from gss_train.data import MODALITIES, Dataset
from gss_train.evaluation import MEASURES
from gss_train.report.comparison import Group
from gss_train.report.figures.curves import with_leaders
from gss_train.report.figures.style import Floats
from gss_train.report.tables import LEAST_LARGEST, Cell, difference_style

_PREDICTIONS = ("target", "fusion", *MODALITIES)
_GAIN = "target \N{MINUS SIGN} best modality"


@dataclass(frozen=True)
class CategoryTable:
    """A table with some rows for each category.

    Attributes:
        title: says what the numbers are.
        columns: names.
        categories: for each category, named with its leaders, a row of cells for each label.
    """

    title: str
    columns: tuple[str, ...]
    categories: dict[str, dict[str, list[Cell]]]


def vote_tables(groups: Sequence[Group]) -> list[CategoryTable]:
    """Dice of target, fusion and modalities, and the routes, at the last validation of each run.

    Means over the runs of each group that has the categories and leaders of the first with a vote; none without a vote.
    """
    voted = [group for group in groups if group.votes]
    if not voted:
        return []
    dataset = voted[0].first.evaluation.dataset
    alike = [group for group in voted if group.first.evaluation.dataset.groups == dataset.groups]
    return [_dice_table(alike, dataset), _route_table(alike, dataset)]


def _dice_table(groups: Sequence[Group], dataset: Dataset) -> CategoryTable:
    """Without the background; the first column says how far the target is above the best modality of its run."""
    values = {
        category: {group.label: _with_gain(_dice(group, category)) for group in groups}
        for category in dataset.categories[1:]
    }
    gains = [abs(float(own[:, 0].mean())) for rows in values.values() for own in rows.values()]
    largest = max(*gains, LEAST_LARGEST)
    cells: dict[str, dict[str, list[Cell]]] = {}
    for category, rows in values.items():
        row_cells = cells[with_leaders(category, dataset)] = {}
        for label, own in rows.items():
            gain = replace(_cell(own[:, 0], signed=True), style=difference_style(float(own[:, 0].mean()), largest))
            row_cells[label] = [gain, *map(_cell, own.T[1:])]
    title = "Dice (%) of the voted target, of the fusion and of each modality"
    return CategoryTable(title, (_GAIN, *_PREDICTIONS), cells)


def _dice(group: Group, category: str) -> Floats:
    """`[runs, predictions]`."""
    return np.array([[vote.dice[name][category] for name in _PREDICTIONS] for vote in group.votes], dtype=float)


def _with_gain(dice: Floats) -> Floats:
    return np.column_stack([dice[:, 0] - np.nanmax(dice[:, -len(MODALITIES) :], axis=1), dice])


def _route_table(groups: Sequence[Group], dataset: Dataset) -> CategoryTable:
    cells = {
        with_leaders(category, dataset): {group.label: list(map(_cell, _routes(group, category).T)) for group in groups}
        for category in dataset.categories
    }
    return CategoryTable("Routes of the vote (% of the voxels that truly are of a category)", ROUTES, cells)


def _routes(group: Group, category: str) -> Floats:
    """`[runs, routes]`."""
    return np.array([[vote.routes[category][route] for route in ROUTES] for vote in group.votes], dtype=float)


def _cell(values: Floats, *, signed: bool = False) -> Cell:
    """The mean of some runs' shares in per cent, and their standard deviation if there are several; NaN is left out."""
    show, known = MEASURES["dice"].show, values[~np.isnan(values)]
    mean = float(known.mean()) if len(known) else math.nan
    spread = f"± {show(float(known.std(ddof=1)), 1)}" if len(known) > 1 else ""
    return Cell(show(mean, 1, signed=signed), spread)
