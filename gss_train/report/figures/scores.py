"""Scores by subset of the modalities, of one run or several: as a heat map, and as bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from gss_train.data import MODALITIES
from gss_train.evaluation import MEASURES, SubsetScores, interval_of
from gss_train.report.figures.style import HEAT, Floats, colour_of, heat, paper_figure, text_colour

_ROW_INCHES, _BELOW_ROWS_INCHES = 0.19, 0.95
_PANEL_INCHES, _BELOW_PANELS_INCHES = 1.15, 0.9
_GROUP_WIDTH = 0.8


def save_heat_map(stem: Path, runs: Mapping[str, SubsetScores], measure: str = "dice") -> None:
    """Draw the means over the subjects: a row for each region and run, a column for each subset, the mean last.

    Args:
        stem: of the files, `<stem>.png` and `<stem>.svg`.
        runs: scores by the run's name, of the same regions and subsets.
        measure: of `gss_train.evaluation.MEASURES`.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    first = next(iter(runs.values()))
    # [regions, runs, subsets + 1]
    values = np.stack([scores.means_of(measure).T.numpy() for scores in runs.values()], axis=1)
    rows = len(first.names) * len(runs)
    with paper_figure(stem, _BELOW_ROWS_INCHES + _ROW_INCHES * rows) as figure:
        axis, circles = figure.subplots(2, 1, height_ratios=(rows, len(MODALITIES)), sharex=True)
        _draw_cells(axis, values, measure)
        labels = [f"{region}, {run}" if len(runs) > 1 else region for region in first.names for run in runs]
        axis.set_yticks(range(rows), labels)
        axis.set_title(MEASURES[measure].title)
        _draw_circles(circles, first.subsets)


def _draw_cells(axis: Axes, values: Floats, measure: str) -> None:
    """Colours go by the range of a region."""
    shares = np.concatenate([heat(region, measure) for region in values])
    axis.imshow(shares, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values.reshape(shares.shape)):
        share = shares[row, column]
        colour = "black" if np.isnan(share) else text_colour(HEAT(share)[:3])
        text = axis.text(column, row, MEASURES[measure].show(value, 1), ha="center", va="center", color=colour)
        # It does not leave its cell: to look where it ends, for each of them, takes long.
        text.set_in_layout(False)
    _, runs, columns = values.shape
    for start in range(runs, len(shares), runs):
        axis.axhline(start - 0.5, color="white", linewidth=2)
    axis.axvline(columns - 1.5, color="white", linewidth=2)
    axis.tick_params(length=0, labelbottom=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


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
    with paper_figure(stem, _BELOW_PANELS_INCHES + _PANEL_INCHES * count) as figure:
        *panels, circles = figure.subplots(count + 1, 1, height_ratios=(*[2] * count, 1), sharex=True)
        for place, (name, scores) in enumerate(runs.items()):
            _draw_bars(panels, scores, name, place, len(runs))
        for axis, region in zip(panels, first.names, strict=True):
            axis.set_ylabel(f"{region}\n{MEASURES['dice'].title}")
            axis.set_ylim(0, 100)
            axis.set_xlim(-0.7, len(first.subsets) + 0.7)
            axis.grid(axis="y", linewidth=0.3)
            axis.set_axisbelow(True)
            axis.tick_params(bottom=False, labelbottom=False)
        if len(runs) > 1:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        _draw_circles(circles, first.subsets)


def _draw_bars(panels: Sequence[Axes], scores: SubsetScores, name: str, place: int, count: int) -> None:
    """The bars of one run in all panels."""
    means = scores.means_of("dice").numpy()
    low, high = interval_of(scores, "dice")
    # Without an interval, as with one subject, there is a bar alone.
    below, above = np.nan_to_num(means - low), np.nan_to_num(high - means)
    width = _GROUP_WIDTH / count
    positions = np.arange(len(means)) + (place - (count - 1) / 2) * width
    for region, axis in enumerate(panels):
        axis.bar(
            positions,
            100 * means[:, region],
            width,
            yerr=100 * np.clip([below[:, region], above[:, region]], 0, None),
            color=colour_of(place),
            error_kw={"linewidth": 0.5},
            label=name,
        )


def _draw_circles(axis: Axes, subsets: Sequence[Sequence[bool]]) -> None:
    """Below an axis whose columns are subsets and their mean, a row for each modality: filled where it is given."""
    for row, modality in enumerate(MODALITIES):
        axis.text(-0.8, -0.5 - row, modality, ha="right", va="center", fontsize=6)
    rows, columns = np.meshgrid(np.arange(len(MODALITIES)), np.arange(len(subsets)))
    given = np.array(subsets)
    for chosen, face in ((given, "black"), (~given, "white")):
        axis.plot(columns[chosen], -0.5 - rows[chosen], "o", ms=3.2, mfc=face, mec="black", mew=0.5)
    axis.text(len(subsets), -0.5, "mean", ha="center", va="center", fontsize="small")
    axis.set_ylim(-len(MODALITIES), 0)
    axis.set_axis_off()
