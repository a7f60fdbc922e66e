"""Scores by subset as bars, grouped by run, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from gss_train.evaluation import SubsetScores, interval_of
from gss_train.report.figures.style import COLOURS, draw_circles, paper_figure

_PANEL_INCHES, _REST_INCHES = 1.15, 0.9
_GROUP_WIDTH = 0.8


def save_bars(stem: Path, runs: Mapping[str, SubsetScores]) -> None:
    """Draw the mean Dice over the subjects and its 95 % interval over them: a panel for each region.

    Args:
        stem: of the files, `<stem>.png` and `<stem>.svg`.
        runs: scores by the run's name, of the same regions and subsets.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    first = next(iter(runs.values()))
    count = len(first.names)
    with paper_figure(stem, _REST_INCHES + _PANEL_INCHES * count) as figure:
        *panels, circles = figure.subplots(count + 1, 1, height_ratios=(*[2] * count, 1), sharex=True)
        for region, axis in enumerate(panels):
            for place, (name, scores) in enumerate(runs.items()):
                _draw(axis, scores, region, name, place, len(runs))
            axis.set_ylabel(f"{first.names[region]}\nDice (%)")
            axis.set_ylim(0, 100)
            axis.set_xlim(-0.7, len(first.subsets) + 0.7)
            axis.grid(axis="y", linewidth=0.3)
            axis.set_axisbelow(True)
            axis.tick_params(bottom=False, labelbottom=False)
        if len(runs) > 1:
            bars, names = panels[0].get_legend_handles_labels()
            figure.legend(bars, names, loc="outside upper center", ncols=3, frameon=False)
        draw_circles(circles, first.subsets)
        circles.text(len(first.subsets), -0.5, "mean", ha="center", va="center", fontsize="small")


def _draw(axis: Axes, scores: SubsetScores, region: int, name: str, place: int, count: int) -> None:
    means = 100 * np.array([*scores.mean[:, region].tolist(), scores.overall[region].item()])
    low, high = (100 * ends[:, region] for ends in interval_of(scores, "dice"))
    # Without an interval, as with one subject, there is a bar alone.
    below, above = np.nan_to_num(means - low), np.nan_to_num(high - means)
    width = _GROUP_WIDTH / count
    positions = np.arange(len(means)) + (place - (count - 1) / 2) * width
    axis.bar(
        positions,
        means,
        width,
        yerr=np.clip([below, above], 0, None),
        color=COLOURS[place % len(COLOURS)],
        error_kw={"linewidth": 0.5},
        label=name,
    )
