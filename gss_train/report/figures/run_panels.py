"""The panels that figures are put together from; colours are such that colour-blind readers can tell them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from gss_kernels import ROUTES
from gss_train.common import open_replacing
from gss_train.data import MODALITIES, REGIONS, Dataset
from gss_train.runs import EpochRecord, ValidationRecord

# Okabe and Ito's palette.
_COLOURS = ("#000000", "#D55E00", "#009E73", "#56B4E9", "#F0E442", "#CC79A7", "#0072B2", "#E69F00")
_ROUTE_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#BBBBBB")
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MEAN_COLOUR = "#000000"
_EPOCHS_WITH_DOTS = 50


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many hundred pixels, drawn without a window."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, such that it is there completely or not at all, whenever the process is killed."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with Image.open(drawn) as picture, open_replacing(path) as file:
        # Runs have as many figures as epochs: with a palette they are half as large and look the same.
        picture.convert("RGB").quantize(256).save(file, format="png")


def line_colour(number: int) -> str:
    """The colour of a curve."""
    return _LINE_COLOURS[number % len(_LINE_COLOURS)]


def level_with_most_tumour(truth: Tensor) -> int:
    """The axial slice of `[D, H, W]` category indices with most tumour, or the middle one if there is none."""
    tumour = (truth > 0).sum(dim=(0, 1))
    return int(tumour.argmax()) if tumour.any() else truth.shape[2] // 2


def draw_slices(
    pictures: SubFigure, image: Tensor, truth: Tensor, prediction: Tensor, dataset: Dataset, level: int
) -> None:
    """One axial slice of the four scans, truth and prediction, and what the colours mean."""
    axes = pictures.subplots(1, len(MODALITIES) + 2)
    for axis, name, scan in zip(axes, MODALITIES, image, strict=False):
        _show(axis, name, scan[:, :, level].numpy(), "gray")
    palette = list(islice(chain(_COLOURS, cycle(_COLOURS[1:])), dataset.num_categories))
    colours = ListedColormap(palette)
    for axis, name, labels in zip(axes[-2:], ("truth", "prediction"), (truth, prediction), strict=True):
        _show(axis, name, labels[:, :, level].numpy(), colours, dataset.num_categories - 0.5)
    handles = [
        Patch(color=colour, label=name) for colour, name in zip(palette[1:], dataset.categories[1:], strict=True)
    ]
    add_legend(axes[-1], handles)


def _show(
    axis: Axes, name: str, plane: np.ndarray, colours: str | ListedColormap, highest: float | None = None
) -> None:
    """One axial plane `[x, y]`, shown with the face upwards."""
    lowest = None if highest is None else -0.5
    axis.imshow(plane.T, cmap=colours, vmin=lowest, vmax=highest, origin="upper", interpolation="nearest")
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()


def draw_line(
    axis: Axes, epochs: Sequence[int], values: Sequence[float | None], label: str, colour: str, width: float = 1.3
) -> None:
    """A curve over epochs, with gaps where there is no value."""
    heights = [math.nan if value is None else value for value in values]
    # A lone epoch shows as a dot; in long runs dots would hide the line.
    size = 5 if len(epochs) <= _EPOCHS_WITH_DOTS else 1
    axis.plot(epochs, heights, marker=".", markersize=size, linewidth=width, color=colour, label=label)


def draw_validations(axis: Axes, validations: Sequence[ValidationRecord]) -> None:
    """Dice over epochs: the mean, and that of each region over the subsets; a star marks the best mean."""
    epochs = [record.epoch for record in validations]
    draw_line(axis, epochs, [record.mean_dice for record in validations], "mean", _MEAN_COLOUR, 2)
    for number, region in enumerate(REGIONS):
        draw_line(
            axis, epochs, [_mean_over_subsets(record, region) for record in validations], region, line_colour(number)
        )
    best = [(record.epoch, record.mean_dice) for record in validations if record.best and record.mean_dice is not None]
    if best:
        axis.plot(*best[-1], marker="*", markersize=11, linestyle="", color=_MEAN_COLOUR, label="best")
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
        for route, (name, colour) in enumerate(zip(ROUTES, _ROUTE_COLOURS, strict=True)):
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
        draw_line(axis, numbers, shares, name, line_colour(modality))
    add_legend(axis)
    label_epochs(axis, "agreement with the target")


def add_legend(axis: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend beside the panel, where it covers nothing."""
    axis.legend(
        handles=axis.get_legend_handles_labels()[0] if handles is None else handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=7,
        frameon=False,
        handlelength=1.2,
    )


def label_epochs(axis: Axes, title: str) -> None:
    """Title, ticks and grid of a panel over epochs."""
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axis.grid(alpha=0.3)
