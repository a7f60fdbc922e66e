"""Axial slices side by side: scans, truth, and what networks make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch
from torch import Tensor

from gss_train.data import MODALITIES, Dataset, subset_name
from gss_train.evaluation import SegmentedSubject
from gss_train.report.figures.style import TWO_COLUMNS_INCHES, add_legend, category_colours, paper_figure

_REST_INCHES = 0.85
# Around the tumour, as a share of its extent.
_MARGIN = 0.4

Labels = npt.NDArray[np.uint8]


def draw_slices(
    pictures: SubFigure, image: Tensor, truth: Tensor, prediction: Tensor, dataset: Dataset, level: int
) -> None:
    """One axial slice of the four scans, truth and prediction, and what the colours mean."""
    axes = pictures.subplots(1, len(MODALITIES) + 2)
    for axis, name, scan in zip(axes, MODALITIES, image.numpy(), strict=False):
        _show(axis, name, scan[:, :, level])
    colours = ListedColormap(category_colours(dataset))
    for axis, name, labels in zip(axes[-2:], ("truth", "prediction"), (truth, prediction), strict=True):
        _show(axis, name, labels[:, :, level].numpy(), colours)
    add_legend(axes[-1], _categories(dataset))


def save_panels(
    stem: Path,
    subject: SegmentedSubject,
    dataset: Dataset,
    subsets: Sequence[Sequence[bool]],
    runs: Mapping[str, Labels],
) -> None:
    """Draw the tumour in its largest axial slice: scans and truth above, then a row of predictions for each run.

    Args:
        stem: of the files, `<stem>.png` and `<stem>.svg`.
        subject: to draw.
        dataset: for the categories' names.
        subsets: one flag per modality for each of S subsets.
        runs: by the run's name, its predictions `[S, D, H, W]`.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    level = level_with_most_tumour(subject.truth)
    box = (*_around_tumour(subject.truth[:, :, level]), level)
    width, depth = subject.truth[box].shape
    aspect = float(subject.spacing[1] / subject.spacing[0])
    columns = max(len(subsets), len(MODALITIES) + 1)
    height = (1 + len(runs)) * TWO_COLUMNS_INCHES / columns * aspect * depth / width + _REST_INCHES
    colours = ListedColormap(category_colours(dataset))
    titles: Any = {"axes.titlesize": 4.5, "axes.titlepad": 1.5}
    with paper_figure(stem, height, padding=0.008) as figure, mpl.rc_context(titles):
        axes = figure.subplots(1 + len(runs), columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, modality, scan in zip(axes[0], MODALITIES, subject.image, strict=False):
            _show(axis, modality, scan[box], brightest=255, aspect=aspect)
        _show(axes[0, len(MODALITIES)], "truth", subject.truth[box], colours, aspect=aspect)
        for number, (name, predictions) in enumerate(runs.items()):
            row = axes[1 + number]
            for axis, subset, labels in zip(row, subsets, predictions, strict=False):
                _show(axis, "" if number else _short(subset), labels[box], colours, aspect=aspect)
            row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=4)
        figure.legend(handles=_categories(dataset), loc="outside lower center", ncols=dataset.num_categories - 1)


def level_with_most_tumour(truth: Labels) -> int:
    """The axial slice of `[D, H, W]` category indices with most tumour, or the middle one if there is none."""
    tumour = (truth > 0).sum(axis=(0, 1))
    return int(tumour.argmax()) if tumour.any() else truth.shape[2] // 2


def _around_tumour(plane: Labels) -> tuple[slice, slice]:
    """A box around the tumour in a plane; all of the plane if there is none."""
    positions = np.argwhere(plane > 0)
    if not len(positions):
        return slice(None), slice(None)
    box = []
    for first, last in zip(positions.min(axis=0).tolist(), positions.max(axis=0).tolist(), strict=True):
        margin = max(2, round(_MARGIN * (last - first + 1)))
        box.append(slice(max(0, first - margin), last + 1 + margin))
    across, along = box
    return across, along


def _show(
    axis: Axes,
    title: str,
    plane: npt.NDArray[Any],
    colours: ListedColormap | None = None,
    *,
    brightest: float | None = None,
    aspect: float = 1.0,
) -> None:
    """One axial plane `[x, y]` with the face upwards: labels in their colours, or else a scan in greys."""
    highest = brightest if colours is None else colours.N - 1
    axis.imshow(
        plane.T,
        cmap=colours or "gray",
        vmin=None if highest is None else 0,
        vmax=highest,
        aspect=aspect,
        interpolation="nearest",
    )
    axis.set_title(title)
    axis.set_axis_off()


def _categories(dataset: Dataset) -> list[Patch]:
    """What the colours mean, for a legend."""
    named = zip(category_colours(dataset), dataset.categories, strict=True)
    return [Patch(color=colour, label=name) for colour, name in named][1:]


def _short(subset: Sequence[bool]) -> str:
    """A subset's name in lines that are no wider than a panel."""
    return "all" if all(subset) else subset_name(subset).replace("+", "\n")
