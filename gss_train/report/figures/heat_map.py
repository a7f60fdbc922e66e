"""The table of scores by subset as a heat map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from gss_train.evaluation import TITLES, SubsetScores
from gss_train.report.figures.style import draw_circles, paper_figure

_LOWER_IS_BETTER = {"hd95_mm"}
_ROW_INCHES, _REST_INCHES = 0.19, 0.95
# Of the colour's share of its range: on darker cells text is white.
_DARK = 0.55


def save_heat_map(stem: Path, runs: Mapping[str, SubsetScores], measure: str = "dice") -> None:
    """Draw the means over the subjects: a row for each region and run, a column for each subset, the mean last.

    Args:
        stem: of the files, `<stem>.png` and `<stem>.svg`.
        runs: scores by the run's name, of the same regions and subsets.
        measure: of `gss_train.evaluation.metrics.MEASURES`.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    first = next(iter(runs.values()))
    rows = [(region, name) for region in range(len(first.names)) for name in runs]
    height = _REST_INCHES + _ROW_INCHES * len(rows)
    with paper_figure(stem, height) as figure:
        axis, circles = figure.subplots(2, 1, height_ratios=(len(rows), 4), sharex=True)
        scale = 1 if measure in _LOWER_IS_BETTER else 100
        values = scale * np.array([_row(runs[name], measure, region) for region, name in rows])
        _draw(axis, values, len(runs), reverse=measure in _LOWER_IS_BETTER)
        several = len(runs) > 1
        labels = [f"{first.names[region]}, {name}" if several else first.names[region] for region, name in rows]
        axis.set_yticks(range(len(rows)), labels)
        axis.set_title(TITLES[measure])
        draw_circles(circles, first.subsets)
        circles.text(len(first.subsets), -0.5, "mean", ha="center", va="center", fontsize="small")


def _row(scores: SubsetScores, measure: str, region: int) -> list[float]:
    return [*scores.mean_of(measure)[:, region].tolist(), scores.overall_of(measure)[region].item()]


def _draw(axis: Axes, values: np.ndarray, runs: int, *, reverse: bool) -> None:
    """Colours go by the range of a region."""
    shares = np.full(values.shape, np.nan)
    for start in range(0, len(values), runs):
        block = values[start : start + runs]
        lowest, highest = np.nanmin(block), np.nanmax(block)
        shares[start : start + runs] = (block - lowest) / max(highest - lowest, 1e-9)
    if reverse:
        shares = 1 - shares
    axis.imshow(shares, cmap=mpl.colormaps["cividis"], vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            axis.text(column, row, "-", ha="center", va="center")
        else:
            colour = "white" if shares[row, column] < _DARK else "black"
            axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    for start in range(runs, len(values), runs):
        axis.axhline(start - 0.5, color="white", linewidth=2)
    axis.axvline(values.shape[1] - 1.5, color="white", linewidth=2)
    axis.tick_params(length=0, labelbottom=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
