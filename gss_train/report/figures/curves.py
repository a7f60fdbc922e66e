"""Panels over the epochs of a run: losses, validation Dice, what the vote knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gss_kernels import ROUTES
from gss_train.data import MODALITIES, REGIONS, Dataset
from gss_train.report.figures.style import BLACK, ROUTE_COLOURS, add_legend, colour_of
from gss_train.runs import EpochRecord, ValidationRecord, VoteRecord

_EPOCHS_WITH_DOTS = 50
# More than a panel has pixels for: a figure of thousands of epochs takes as long as one of hundreds.
_MOST_POINTS = 500

Point = TypeVar("Point")


def draw_line(
    axis: Axes,
    epochs: Sequence[int],
    values: Sequence[float | None],
    label: str,
    colour: str,
    *,
    width: float = 1.3,
    style: str = "-",
) -> None:
    """A curve over epochs, with gaps where there is no value; in long runs of every so many, counted from the last."""
    epochs, values = _thinned(epochs), _thinned(values)
    heights = [math.nan if value is None else value for value in values]
    # A lone epoch shows as a dot; in long runs dots would hide the line.
    size = 5 if len(epochs) <= _EPOCHS_WITH_DOTS else 1
    axis.plot(epochs, heights, marker=".", markersize=size, linewidth=width, linestyle=style, color=colour, label=label)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    every = math.ceil(len(points) / _MOST_POINTS)
    return points[::-every][::-1] if every > 1 else points


def draw_validations(axis: Axes, validations: Sequence[ValidationRecord]) -> None:
    """Dice over epochs: the mean, and that of each region over the subsets; a star marks the best mean."""
    epochs = [record.epoch for record in validations]
    draw_line(axis, epochs, [record.mean_dice for record in validations], "mean", BLACK, width=2)
    for number, region in enumerate(REGIONS):
        draw_line(axis, epochs, [record.region_mean(region) for record in validations], region, colour_of(number))
    best = [(record.epoch, record.mean_dice) for record in validations if record.best and record.mean_dice is not None]
    if best:
        axis.plot(*best[-1], marker="*", markersize=11, linestyle="", color=BLACK, label="best")
    axis.set_ylim(0, 1)
    add_legend(axis)
    label_epochs(axis, "validation Dice")


def voted(validations: Sequence[ValidationRecord]) -> list[tuple[int, VoteRecord]]:
    """The epoch and the vote of each validation that has one."""
    return [(record.epoch, record.vote) for record in validations if record.vote is not None]


def draw_routes(axes: Sequence[Axes], votes: Sequence[tuple[int, VoteRecord]], dataset: Dataset) -> None:
    """A panel for each category: the shares of its true voxels by route, stacked, with gaps where there was none."""
    votes = _thinned(votes)
    epochs = np.array([epoch for epoch, _ in votes], dtype=float)
    between = (epochs[1:] + epochs[:-1]) / 2
    half = (between[0] - epochs[0], epochs[-1] - between[-1]) if len(between) else (0.5, 0.5)
    edges = np.hstack([epochs[0] - half[0], between, epochs[-1] + half[1]])
    for category, axis in zip(dataset.categories, axes, strict=True):
        rows = [[vote.routes[category][route] for route in ROUTES] for _, vote in votes]
        tops = np.array(rows, dtype=float).cumsum(axis=1)
        bottom = np.where(np.isnan(tops[:, 0]), np.nan, 0)
        for route, (name, colour) in enumerate(zip(ROUTES, ROUTE_COLOURS, strict=True)):
            # One shape for all epochs: as bars, a thousand of them take seconds to draw.
            axis.stairs(tops[:, route], edges, baseline=bottom, fill=True, color=colour, label=name)
            bottom = tops[:, route]
        axis.set_ylim(0, 1)
        label_epochs(axis, f"routes in true {category}")
    # In the order in which they lie upon each other.
    add_legend(axes[-1], axes[-1].get_legend_handles_labels()[0][::-1])


def draw_dice_of_votes(axes: Sequence[Axes], votes: Sequence[tuple[int, VoteRecord]], dataset: Dataset) -> None:
    """A panel for each category but the background: Dice of the target, of each modality and of the fusion."""
    epochs = [epoch for epoch, _ in votes]
    lines = [("target", BLACK, 2.2), ("fusion", colour_of(4), 2.2)]
    lines += [(name, colour_of(number), 1.3) for number, name in enumerate(MODALITIES)]
    for category, axis in zip(dataset.categories[1:], axes, strict=True):
        for name, colour, width in lines:
            draw_line(axis, epochs, [vote.dice[name][category] for _, vote in votes], name, colour, width=width)
        axis.set_ylim(0, 1)
        label_epochs(axis, f"Dice of {with_leaders(category, dataset)}")
    add_legend(axes[-1])


def with_leaders(category: str, dataset: Dataset) -> str:
    """Such as "ED, led by FLAIR, T2"."""
    leaders = dataset.groups.leaders[dataset.categories.index(category)]
    return f"{category}, led by {', '.join(MODALITIES[leader] for leader in leaders)}"


def mark_stages(axis: Axes, epochs: Sequence[EpochRecord]) -> None:
    """Dotted lines between the stages."""
    for before, record in pairwise(epochs):
        if record.stage != before.stage:
            axis.axvline(record.epoch - 0.5, color="#888888", linestyle=":", linewidth=1)


def label_epochs(axis: Axes, title: str) -> None:
    """Title, ticks and grid of a panel over epochs."""
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.grid(alpha=0.3)
