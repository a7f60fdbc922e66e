"""Panels over the epochs of a run: losses, validation Dice, the vote of GSS."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gss_kernels import ROUTES
from gss_train.data import MODALITIES, REGIONS, Dataset
from gss_train.report.figures.style import BLACK, ROUTE_COLOURS, add_legend, colour_of
from gss_train.runs import EpochRecord, ValidationRecord

_EPOCHS_WITH_DOTS = 50


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
    """A curve over epochs, with gaps where there is no value."""
    heights = [math.nan if value is None else value for value in values]
    # A lone epoch shows as a dot; in long runs dots would hide the line.
    size = 5 if len(epochs) <= _EPOCHS_WITH_DOTS else 1
    axis.plot(epochs, heights, marker=".", markersize=size, linewidth=width, linestyle=style, color=colour, label=label)


def draw_validations(axis: Axes, validations: Sequence[ValidationRecord]) -> None:
    """Dice over epochs: the mean, and that of each region over the subsets; a star marks the best mean."""
    epochs = [record.epoch for record in validations]
    draw_line(axis, epochs, [record.mean_dice for record in validations], "mean", BLACK, width=2)
    for number, region in enumerate(REGIONS):
        draw_line(
            axis, epochs, [_mean_over_subsets(record, region) for record in validations], region, colour_of(number)
        )
    best = [(record.epoch, record.mean_dice) for record in validations if record.best and record.mean_dice is not None]
    if best:
        axis.plot(*best[-1], marker="*", markersize=11, linestyle="", color=BLACK, label="best")
    axis.set_ylim(0, 1)
    add_legend(axis)
    label_epochs(axis, "validation Dice")


def _mean_over_subsets(record: ValidationRecord, region: str) -> float | None:
    values = [value for scores in record.dice.values() if (value := scores[region]) is not None]
    return sum(values) / len(values) if values else None


def draw_routes(axes: Sequence[Axes], epochs: Sequence[EpochRecord], dataset: Dataset) -> None:
    """Per category the shares of the voxels by route, stacked, with gaps where an epoch had no vote."""
    votes = {record.epoch: record.vote["routes"] for record in epochs if record.vote is not None}
    first, last = min(votes), max(votes)
    without = [[math.nan] * len(ROUTES)] * dataset.num_categories
    shares = np.array([votes.get(epoch, without) for epoch in range(first, last + 1)])
    edges = np.arange(first, last + 2) - 0.5
    for category, axis in enumerate(axes):
        tops = shares[:, category].cumsum(axis=1)
        bottom = np.where(np.isnan(tops[:, 0]), np.nan, 0)
        for route, (name, colour) in enumerate(zip(ROUTES, ROUTE_COLOURS, strict=True)):
            # One shape for all epochs: as bars, a thousand of them take seconds to draw.
            axis.stairs(tops[:, route], edges, baseline=bottom, fill=True, color=colour, label=name)
            bottom = tops[:, route]
        axis.set_ylim(0, 1)
        label_epochs(axis, f"routes of {dataset.categories[category]}")
    # In the order in which they lie upon each other.
    add_legend(axes[-1], axes[-1].get_legend_handles_labels()[0][::-1])


def draw_agreement(axis: Axes, epochs: Sequence[EpochRecord]) -> None:
    """How far each modality agrees with the target."""
    numbers = [record.epoch for record in epochs]
    for modality, name in enumerate(MODALITIES):
        shares = [None if record.vote is None else record.vote["agreement"][modality] for record in epochs]
        draw_line(axis, numbers, shares, name, colour_of(modality))
    add_legend(axis)
    label_epochs(axis, "agreement with the target")


def label_epochs(axis: Axes, title: str) -> None:
    """Title, ticks and grid of a panel over epochs."""
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.grid(alpha=0.3)
