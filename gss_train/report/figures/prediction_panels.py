"""What networks make of a subject from each subset of its scans: pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from gss_train.data import MODALITIES, Dataset, subset_name
from gss_train.evaluation import SegmentedSubject
from gss_train.report.figures.style import CATEGORY_COLOURS, TWO_COLUMNS_INCHES, paper_figure

_REST_INCHES = 0.85
# Around the tumour, as a share of its extent.
_MARGIN = 0.4

Labels = npt.NDArray[np.uint8]


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
    level, box = _around_tumour(subject)
    columns = max(len(subsets), len(MODALITIES) + 1)
    side = TWO_COLUMNS_INCHES / columns
    width, depth = (part.stop - part.start for part in box)
    aspect = depth * subject.spacing[1] / (width * subject.spacing[0])
    height = (1 + len(runs)) * side * aspect + _REST_INCHES
    palette = list(islice(chain(CATEGORY_COLOURS, cycle(CATEGORY_COLOURS[1:])), dataset.num_categories))
    colours, highest = ListedColormap(palette), len(palette) - 1
    with paper_figure(stem, height, padding=0.008) as figure:
        axes = figure.subplots(1 + len(runs), columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, modality, scan in zip(axes[0], MODALITIES, subject.image, strict=False):
            _show(axis, subject, scan[*box, level], "gray", 255, modality)
        _show(axes[0, len(MODALITIES)], subject, subject.truth[*box, level], colours, highest, "truth")
        for number, (name, predictions) in enumerate(runs.items()):
            row = axes[1 + number]
            for axis, subset, labels in zip(row, subsets, predictions, strict=False):
                _show(axis, subject, labels[*box, level], colours, highest, "" if number else _short(subset))
            row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", fontsize=4)
        handles = [
            Patch(color=colour, label=name) for colour, name in zip(palette[1:], dataset.categories[1:], strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _around_tumour(subject: SegmentedSubject) -> tuple[int, tuple[slice, slice]]:
    """The axial slice with most tumour, and a box around the tumour in it; without one, the whole of the middle."""
    tumour = subject.truth > 0
    if not tumour.any():
        width, depth, height = tumour.shape
        return height // 2, (slice(0, width), slice(0, depth))
    level = int(tumour.sum(axis=(0, 1)).argmax())
    positions = np.argwhere(tumour[:, :, level])
    box = []
    for first, last, length in zip(positions.min(axis=0), positions.max(axis=0), tumour.shape, strict=False):
        margin = max(2, round(_MARGIN * int(last - first + 1)))
        box.append(slice(max(0, int(first) - margin), min(length, int(last) + 1 + margin)))
    across, along = box
    return level, (across, along)


def _show(
    axis: Axes, subject: SegmentedSubject, plane: Labels, colours: str | ListedColormap, highest: int, title: str
) -> None:
    """One axial plane `[x, y]` with the face upwards, at the aspect of its voxels."""
    aspect = float(subject.spacing[1] / subject.spacing[0])
    axis.imshow(plane.T, cmap=colours, vmin=0, vmax=highest, aspect=aspect, interpolation="nearest")
    axis.set_title(title, fontsize=4.5, pad=1.5)


def _short(subset: Sequence[bool]) -> str:
    """A subset's name in lines that are no wider than a panel."""
    return "all" if all(subset) else subset_name(subset).replace("+", "\n")
